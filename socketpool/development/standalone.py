"""One instance of a service without a pool: its own state, lease and token, for as long as it runs.

The instance is started as supervisord starts those of a pool, with the same environment and limits,
and the kernel ends it with this process.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from socketpool.config.models import DEFAULT_PORTS, LeaseSettings
from socketpool.config.settings import Settings, read_service, shipped_catalogue
from socketpool.config.statedir import StateDir
from socketpool.credentials.fence import Fence
from socketpool.credentials.tokens import LeaseClaim, LeaseTokens, ensure_secret
from socketpool.errors import ConfigError
from socketpool.supervision import launch
from socketpool.supervision.files import service_spec
from socketpool.supervision.instancespec import FileSpec, InstanceSpec
from socketpool.system.wiping import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.config.settings import Service
    from socketpool.config.values import Address
    from socketpool.core.servicekinds import ServiceKind

LEASE = "development"
STOP_SECONDS = 3.0
READ_BYTES = 65536
LINE_BYTES = 1 << 20
"""Longest line of output, in bytes; a longer one is split."""


class Tie(NamedTuple):
    """The user's files that an instance reads and writes."""

    file: Path
    """The file that the service reads."""
    result: Path
    """The file that the service writes; it may be the same one."""
    replace: bool
    """Whether an existing file may be replaced."""


def find_service(kind: ServiceKind, folder: Path | None) -> Service:
    """The shipped service of a kind, or the one in a folder; raises ConfigError."""
    service = read_service((folder or shipped_catalogue() / kind).resolve())
    if service.client is not kind:
        raise ConfigError(
            f"{service.folder}: its client portion is {service.client or 'none'}, not {kind}",
            hint=f"a service for this command says client: {kind} in its service.yml",
        )
    return service


@contextmanager
def open_state(given: Path | None) -> Iterator[StateDir]:
    """A state directory for one instance: the one given, else one that ends with the block.

    Raises ConfigError when another server has it.
    """
    with ExitStack() as stack:
        root = given or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="socketpool-")))
        state = StateDir(root.absolute())
        state.prepare()
        fd = os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another server is running on {state.root}",
                hint="stop it, or name another directory with --state-dir",
            ) from None
        yield state


class StandaloneInstance:
    """A service on a port and a file of the user, in a state directory of its own."""

    def __init__(self, service: Service, listen: Address, state: StateDir, tie: Tie) -> None:
        self._service = service
        self._listen = listen
        self._state = state
        self._tie = tie
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def token_file(self) -> Path:
        """The file that holds the lease's token, for clients."""
        return self._state.root / "lease.token"

    def start(self) -> None:
        """Start it; `output` tells when it listens."""
        self._clear()
        claim = LeaseClaim(LEASE, time.time_ns())
        with closing(Fence.create(self._state.fence)) as fence:
            fence.admit([self._listen.port], claim.generation)
        token = LeaseTokens(ensure_secret(self._state.lease_key)).sign(claim)
        self._write(self.token_file, token + "\n")
        self._write(self._state.supervisord_pid, str(os.getpid()))
        spec = self._state.services / f"{self._service.name}.json"
        self._write(spec, self._spec().text())
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(spec), str(self._listen.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us; we then end it in order
        )

    def output(self, wait: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """What it logs, until it ends; a line that it prints is the event of an entry.

        ``wait`` returns when there is something to read from a descriptor, and may raise.
        """
        if self._process is None or self._process.stdout is None:
            return
        descriptor, rest = self._process.stdout.fileno(), b""
        while True:
            wait(descriptor)
            block = os.read(descriptor, READ_BYTES)
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > LINE_BYTES or not block:
                lines, rest = [*lines, rest] if rest else lines, b""
            yield from map(_entry, lines)
            if not block:
                return

    def stop(self) -> None:
        """End the instance in any state, and delete its workspace and token."""
        if self._process is not None:
            self._process.terminate()
            _await_end(self._process.pid)
            # Not reaped yet, so that the group is still ours.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        self._clear()

    def _clear(self) -> None:
        wipe(self._state.workspaces / LEASE)
        for path in (self.token_file, self._state.supervisord_pid):
            path.unlink(missing_ok=True)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as out:  # noqa: PTH123 - a descriptor
            out.write(text)

    def _spec(self) -> InstanceSpec:
        settings = Settings(
            listen=self._listen,
            services_host=self._listen.host,
            ports=DEFAULT_PORTS,
            lease=LeaseSettings(),
            services={self._service.name: self._service},
        )
        spec = service_spec(settings, self._state, self._service)
        module = "socketpool.development.onfile"
        return spec.replaced(
            argv=["{python}", "-P", "-u", "-m", module, "{spec}", "{port}"],
            notify="",  # readiness is read from its log
            on_file=FileSpec(
                client=str(self._service.client),
                file=str(self._tie.file),
                result=str(self._tie.result),
                replace=self._tie.replace,
            ),
        )


def _entry(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "replace")
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {"event": text}


def _await_end(pid: int) -> None:
    """Return when the child has ended (it is not reaped) or the time is up."""
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(ChildProcessError):  # it has been reaped already
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                return
            time.sleep(0.02)
