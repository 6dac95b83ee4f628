"""A pool without supervisord and without an HTTP server, for tests of services.

It belongs to the process that makes it: the services run as in any pool, each instance a process
that `launch` has prepared, but the leases are granted by a method call.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from socketpool.client.answers import ClientLease, LeasedService
from socketpool.client.roundtrip import RoundTrip, RunOptions, Summary
from socketpool.credentials.fence import Fence
from socketpool.credentials.tokens import LeaseClaim, LeaseTokens, read_secret
from socketpool.errors import NoCapacity, NotAuthorised, ServiceFailed, TimedOut, UsageError
from socketpool.rsi.runner import workspace as workspaces_of
from socketpool.supervision import conf, launch
from socketpool.supervision.notify import READY, ReadyMessages
from socketpool.system.listeners import Listeners
from socketpool.system.processes import child_of, end, strays
from socketpool.system.wiping import wipe
from socketpool.testing.places import HOST, find_services, private_state, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.core.servicekinds import ServiceKind

TTL = 60.0
POLL_SECONDS = 0.01
LAST_LINES = 15


class InProcessPool:
    """One instance of each service, leased by name, for the length of a ``with`` block.

    ``places`` are folders of services, or catalogues; the shipped upload and download are there
    anyhow.  Entering starts all of them at once and returns when every one is ready: it raises
    ConfigError, ServiceFailed with the last lines of the log of a service that ends, or TimedOut
    for one that isn't ready within its start limit.  Leaving ends every process and removes
    every file, whatever happened in between; and when this process is killed, the kernel ends them.

    The methods `acquire`, `renew`, `release` and `kinds` are those of `PoolClient`, so that a
    `RoundTrip` can be made with the pool.  A lease lasts until it is released.  Thread-safe.
    """

    host = HOST
    port = 0

    def __init__(self, *places: Path | str) -> None:
        self._places = places
        self._stack = ExitStack()
        self._changed = threading.Condition()
        self._instances: dict[str, _Instance] = {}
        self._leases: dict[str, list[_Instance]] = {}
        self._generation = 0

    def __enter__(self) -> Self:
        services = find_services(self._places)
        self._leases.clear()
        self._ready: set[int] = set()  # processes, as the kernel named them
        with ExitStack() as stack:
            self._state = stack.enter_context(private_state())
            self._state.check()
            self._fence = stack.enter_context(closing(Fence.create(self._state.fence)))
            self._tokens = LeaseTokens(read_secret(self._state.lease_key))
            self._messages = stack.enter_context(closing(ReadyMessages(self._state.notify_socket)))
            # The kernel ends a child with the *thread* that started it: one that stays.
            self._starter = ThreadPoolExecutor(1, thread_name_prefix="socketpool-starter")
            stack.callback(self._starter.shutdown)
            stack.callback(self._end_all)
            self._instances = {n: _Instance(s, self._state) for n, s in services.items()}
            self._start(list(self._instances.values()))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def lease(self, *services: str, wait: float = 0.0) -> Iterator[ClientLease]:
        """A lease on these services for the length of a ``with`` block; see `acquire`."""
        lease = self.acquire(list(services), wait=wait)
        try:
            yield lease
        finally:
            with suppress(NotAuthorised):  # released by the test
                self.release(lease.id)

    def round_trip(
        self, path: Path | str, services: Sequence[str], options: RunOptions | None = None
    ) -> Summary:
        """Do what ``socketpool_client`` does with an archive or a directory; see `RoundTrip.run`.

        Raises any `SocketpoolError`, and then what is at ``path`` is untouched.
        """
        return RoundTrip(self, Path(path), services, options or RunOptions()).run()

    def log(self, service: str) -> str:
        """What the service's processes have logged and printed so far."""
        return self._instances[service].output()

    def workspace(self, lease: ClientLease) -> Path:
        """The directory in which the services of the lease work."""
        return self._state.workspaces / lease.id

    # -- what a round trip needs ---------------------------------------------------------------

    def acquire(
        self, services: list[str], *, ttl: float | None = None, wait: float = 0.0
    ) -> ClientLease:
        """Lease all of the services, waiting up to ``wait`` seconds for those in use.

        Raises UsageError for one that isn't there, NoCapacity, and ServiceFailed for one that has
        ended since it was ready.  The lease doesn't end by itself, whatever ``ttl`` is.
        """
        unknown = [name for name in services if name not in self._instances]
        if unknown:
            raise UsageError(
                f"no service is named {unknown[0]!r}",
                hint="known services: " + ", ".join(sorted(self._instances)),
            )
        wanted = [self._instances[name] for name in services]
        for instance in wanted:
            instance.check_alive()
        with self._changed:
            free = self._changed.wait_for(lambda: not any(i.leased for i in wanted), wait)
            if not free or len(set(services)) < len(services):
                raise NoCapacity("an in-process pool has one instance of each service, in use now")
            for instance in wanted:
                instance.leased = True
            self._generation += 1
            claim = LeaseClaim(secrets.token_hex(8), self._generation)
            self._leases[claim.lease] = wanted
        self._fence.admit([i.port for i in wanted], claim.generation)
        return ClientLease(
            id=claim.lease,
            token=self._tokens.sign(claim),
            ttl=TTL if ttl is None else ttl,
            services=tuple(i.place() for i in wanted),
        )

    def renew(self, lease_id: str) -> float:
        """The seconds the lease now has.

        Raises NotAuthorised when it was released, and ServiceFailed when one of its services has
        ended: nobody starts it again here, so that a test needn't wait for it.
        """
        for instance in self._held(lease_id):
            instance.check_alive()
        return TTL

    def release(self, lease_id: str) -> None:
        """End a lease and its workspace, and restart its plain programs; raises NotAuthorised."""
        held = self._held(lease_id)
        del self._leases[lease_id]
        self._fence.bar(i.port for i in held)
        workspaces_of.discard(self._state.workspaces, self._state.trash, lease_id)
        for path in self._state.trash.glob(f"{lease_id}.*"):
            wipe(path)
        programs = [i for i in held if i.service.sdk is None]
        _end(programs)
        self._start(programs)
        with self._changed:
            for instance in held:
                instance.leased = False
            self._changed.notify_all()

    def kinds(self) -> dict[str, ServiceKind | None]:
        """The services, and the kind of the client portion of each."""
        return {name: i.service.client for name, i in self._instances.items()}

    def close(self) -> None:
        """Nothing: `PoolClient` has connections of its threads to close."""

    def _held(self, lease_id: str) -> list[_Instance]:
        try:
            return self._leases[lease_id]
        except KeyError:
            raise NotAuthorised("the lease has ended", hint="take a new lease") from None

    # -- processes -----------------------------------------------------------------------------

    def _start(self, instances: list[_Instance]) -> None:
        for instance in instances:
            self._starter.submit(instance.start).result()
        for instance in instances:
            instance.await_ready(self._said_ready)

    def _said_ready(self, instance: _Instance) -> bool:
        """Whether it has told so itself, where that is asked for."""
        self._ready.update(m.pid for m in self._messages.receive() if m.text == READY)
        children = {child_of(os.getpid(), speaker) for speaker in self._ready}
        return not instance.service.notifies or instance.pid in children

    def _end_all(self) -> None:
        try:
            _end(list(self._instances.values()))
            end(strays(self._state.supervisor_socket), grace=0.5)
        finally:
            for instance in self._instances.values():
                instance.free_port()


class _Instance:
    """A service on its port."""

    def __init__(self, service: Service, state: StateDir) -> None:
        self.service = service
        self.leased = False
        self.process: subprocess.Popen[bytes] | None = None
        self._state = state
        self._log = state.logs / f"{service.name}.log"
        self._spec = state.services / f"{service.name}.json"
        conf.install(self._spec, spec_of(service, state).text())
        # Bound and never listening: the port is ours until the end, and the service's to take.
        self._reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((HOST, 0))
        self.port = int(self._reserved.getsockname()[1])

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", launch.__file__, str(self._spec), str(self.port)]
        url = f"unix://{self._state.supervisor_socket}"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._state.root,
                # By this name whatever it leaves behind is found at the end.
                env=os.environ | {"SUPERVISOR_SERVER_URL": url},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    def await_ready(self, said_ready: Callable[[_Instance], bool]) -> None:
        deadline = time.monotonic() + self.service.readiness.start
        while not (said_ready(self) and Listeners().owned(self.port, self.pid)):
            self.check_alive()
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{self.service.name} was not ready within "
                    f"{self.service.readiness.start:g} s\n" + self._last_lines(),
                    hint="it has to listen on the host and port that it is told",
                )
            time.sleep(POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise ServiceFailed when the process has ended by itself."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            raise ServiceFailed(
                f"{self.service.name} ended by itself (exit code {code}):\n{self._last_lines()}"
            )

    def place(self) -> LeasedService:
        """As a lease names it."""
        name = self.service.name
        return LeasedService(
            service=name,
            host=HOST,
            port=self.port,
            instance=f"{name}:{self.port}",
            client=self.service.client,
            url_template=self.service.url,
        )

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def free_port(self) -> None:
        self._reserved.close()

    def _last_lines(self) -> str:
        return "\n".join(self.output().splitlines()[-LAST_LINES:])


def _end(instances: list[_Instance]) -> None:
    """As supervisord does: SIGTERM to the group of each, and SIGKILL after a while."""
    started = [i.process for i in instances if i.process is not None]
    for process in started:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + conf.STOP_SECONDS
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in started:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
