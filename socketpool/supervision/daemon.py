"""A pool in the foreground: writes what supervisord needs, runs it, and leaves nothing behind.

Whatever way this process ends, nothing survives it: the kernel tells supervisord when we die, and
every process of the pool when supervisord dies.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from socketpool.credentials.tokens import ensure_secret, read_secret
from socketpool.errors import ConfigError, SocketpoolError, TimedOut
from socketpool.supervision import conf
from socketpool.supervision.files import spec_texts, write_settings
from socketpool.supervision.logtail import PipeTail, last_lines
from socketpool.supervision.rpc import Supervisor, SupervisorUnreachable
from socketpool.system.ownprocess import die_with_parent, reset_signals
from socketpool.system.processes import end, strays, why_not

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.config.settings import Settings
    from socketpool.config.statedir import StateDir

START_SECONDS = 180.0
STOP_SECONDS = 15.0
WANTED_DESCRIPTORS = 8192


class PoolFailed(SocketpoolError):
    """The pool ended by itself, or never came up."""

    code = "pool-failed"


class PoolDaemon:
    """supervisord with the pool server and all instances under it."""

    def __init__(self, settings: Settings, state: StateDir) -> None:
        self._settings = settings
        self._state = state
        self._supervisor = Supervisor(state.supervisor_socket)
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start supervisord; raises ConfigError when the state directory or port is in use."""
        os.umask(0o077)  # whatever we keep is for this account alone
        self._state.prepare()
        self._take_lock()
        end(strays(self._state.supervisor_socket), grace=2.0)
        listen = self._settings.listen
        refused = why_not(listen.host, listen.port)
        if refused:
            raise ConfigError(
                f"can't listen on {listen}: {refused}",
                hint="listen on an address of this machine, and a port that no other program has "
                "(0 picks one)",
            )
        self._write_files()
        _raise_descriptor_limit()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "supervisor.supervisord"),
                *("-n", "-c", str(self._state.supervisord_conf)),
            ],
            stdin=subprocess.DEVNULL,
            # Not into a file: on a full disk it complains here, and dies when it can't.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._state.root,
            start_new_session=True,  # Ctrl-C is for us; we then end it in order
            preexec_fn=_prepare,  # noqa: PLW1509 - this process has one thread
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._printed = PipeTail(self._process.stdout)

    def wait_ready(self, check: Callable[[], None]) -> None:
        """Return when every service was started up; raises PoolFailed or TimedOut.

        ``check`` is called again and again, and may raise.
        """
        deadline = time.monotonic() + START_SECONDS
        check()
        while not self._is_ready():
            check()
            self._raise_if_dead()
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"the pool was not ready within {START_SECONDS:g} s",
                    hint=f"look into {self._state.logs}",
                )
            time.sleep(0.05)

    def instances(self) -> dict[str, list[dict[str, Any]]]:
        """The instances by service, as the pool server tells them."""
        token = read_secret(self._state.token)
        answer = self._get("/v1/instances", {"Authorization": f"Bearer {token}"})
        by_service: dict[str, list[dict[str, Any]]] = {n: [] for n in self._settings.services}
        for instance in json.loads(answer or b"[]"):
            by_service[instance["service"]].append(instance)
        return by_service

    def access(self) -> tuple[str, int, str]:
        """Host and port at which the pool server is reached from here, and the API token."""
        listen = self._settings.listen
        return _reachable(listen.host), listen.port, read_secret(self._state.token)

    @property
    def supervisord_pid(self) -> int:
        """The process of supervisord, our child."""
        assert self._process is not None  # noqa: S101 - it was started
        return self._process.pid

    def stop(self) -> bool:
        """End everything, whatever state it is in; False when nothing had been started."""
        started = self._process is not None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock >= 0:
            end(strays(self._state.supervisor_socket), grace=2.0)
            os.close(self._lock)
            self._lock = -1
        return started

    def _take_lock(self) -> None:
        self._lock = os.open(self._state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise ConfigError(
                f"another pool server is running on {self._state.root}",
                hint="stop it, or name another directory with --state-dir",
            ) from None

    def _write_files(self) -> None:
        state = self._state
        try:
            for old in (*state.programs.iterdir(), *state.services.iterdir()):
                old.unlink()
            ensure_secret(state.token)
            ensure_secret(state.lease_key)
            state.drained.unlink(missing_ok=True)
            conf.install(state.supervisord_conf, conf.main_conf(state, root=os.geteuid() == 0))
        except OSError as error:
            raise ConfigError(
                f"{state.root}: {error.strerror}", hint="check the disk's space and permissions"
            ) from None
        write_settings(state, self._settings, spec_texts(self._settings, state))

    def _is_ready(self) -> bool:
        """Whether the pool serves, and supervisord shows so.

        supervisord calls the pool server RUNNING after its startsecs, a second; until then one
        that ends counts as failing to start, and is started again after growing pauses.
        """
        return self._get("/readyz", {}) is not None and self._server_state() == "RUNNING"

    def _server_state(self) -> str:
        """What supervisord says of the pool server; empty when it can't be asked."""
        try:
            processes = self._supervisor.processes()
        except SupervisorUnreachable:
            return ""
        return next((p.state for p in processes if p.name == conf.POOL_SERVER), "")

    def _get(self, path: str, headers: dict[str, str]) -> bytes | None:
        """The pool server's answer, if it is a good one."""
        listen = self._settings.listen
        connection = http.client.HTTPConnection(_reachable(listen.host), listen.port, timeout=5)
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        else:
            return body if response.status == 200 else None
        finally:
            connection.close()

    def _raise_if_dead(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise PoolFailed(
                "supervisord ended by itself: " + _joined(self._printed.last_lines(5)),
                hint=f"look into {self._state.supervisord_log}",
            )
        # EXITED: it ended after supervisord had called it RUNNING, before it was ready.
        if self._server_state() in {"BACKOFF", "EXITED"}:
            log = self._state.logs / f"{conf.POOL_SERVER}.log"
            raise PoolFailed(
                "the pool server does not start: " + _joined(last_lines(log, 5)),
                hint=f"look into {log}",
            )


def _prepare() -> None:
    die_with_parent(signal.SIGTERM)
    reset_signals()  # whoever started us, perhaps nohup, may have had signals ignored or blocked


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _reachable(host: str) -> str:
    """An address at which a server listening on ``host`` answers."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _joined(lines: list[str]) -> str:
    return " | ".join(lines) or "(nothing was logged)"
