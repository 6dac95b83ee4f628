"""Runs an SDK service on its port: a small parent that forks a process for each session.

The parent owns the listening socket and has everything imported; it stays single-threaded, so
that forking is safe, and never reads a byte of a client.  Whatever a session does wrong ends with
its process.  ``python -m socketpool.rsi.runner <service.json> <port>``.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.archive.names import show
from socketpool.credentials.fence import Fence
from socketpool.credentials.tokens import LeaseTokens, read_secret
from socketpool.errors import NotAuthorised, SocketpoolError, TimedOut
from socketpool.logs import log_to_stderr
from socketpool.protocol.session import send_error
from socketpool.rsi.crash import crash
from socketpool.rsi.executable import ExecutableVendor
from socketpool.rsi.runner.sessionprocess import run_session
from socketpool.rsi.runner.slots import Slots
from socketpool.rsi.runner.workrecord import Phase, WorkRecord
from socketpool.rsi.service import ServiceServer, SessionLimits
from socketpool.supervision.instancespec import InstanceSpec, SpecRefused
from socketpool.supervision.notify import AliveSocket, say_ready
from socketpool.system.ownprocess import (
    adopt_descendants,
    die_with_parent,
    limit_resources,
    reset_signals,
)
from socketpool.system.signals import catch_what_python_ignores
from socketpool.system.sockets import listen_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

BACKLOG = 128

MAX_GREETING = 64
"""How many peers may be about to show their token at a time, besides the sessions."""

CHECK_SECONDS = 0.25
"""How soon after its lease's end a session is killed at the latest."""

DRAIN_SECONDS = 1.5
"""How long sessions may go on after SIGTERM; less than supervisord's stopwaitsecs."""

OVERTIME_SECONDS = 5.0
"""How long after its own time limit a session that doesn't end is killed."""

log = logging.getLogger("socketpool.runner")


class _Session:
    """A session's process, as its parent knows it.

    The parent keeps the connection too, of which it never reads a byte: when the process ends
    without a verdict the client hears it from here.
    """

    def __init__(self, connection: socket.socket, *, generation: int, deadline: float) -> None:
        self.connection = connection
        self.generation = generation
        """Which generation held the port when the client connected."""
        self.deadline = deadline
        """The monotonic second at which it is killed."""
        self.reason: SocketpoolError | None = None
        """Why it was killed, if it was."""
        self.record = WorkRecord()

    def bury(self, pid: int, code: int) -> None:
        """Tell the client when it still waits, and let go of everything; the process has ended."""
        record = self.record
        member, lease = record.member, record.lease
        waiting = record.phase is Phase.WORKING
        if code or waiting or self.reason is not None:
            extra = {"pid": pid, "exit": code, "lease": lease, "member": show(member)}
            why = {} if self.reason is None else {"reason": self.reason.message}
            log.warning("session ended badly", extra=extra | why)
        if waiting and not record.unfinished_block:
            with suppress(OSError, SocketpoolError):
                self.connection.settimeout(0)  # a client that doesn't read is not waited for
                send_error(self.connection, self.reason or crash(code, member, lease))
                self.connection.shutdown(socket.SHUT_WR)
        self.close()

    def close(self) -> None:
        """Let go of the connection and the record."""
        self.connection.close()
        self.record.close()


class Runner:
    """The parent process of one instance."""

    def __init__(self, spec: InstanceSpec, port: int) -> None:
        self._port = port
        self._spec = spec
        self._sdk = sdk = spec.require_sdk()
        self._limits = SessionLimits(spec.limits.session_time, spec.limits.archive_size)
        self._service: Callable[..., ServiceServer]
        if sdk.file is not None and sdk.cls is not None:
            self._service = load_class(Path(spec.folder), sdk.file, sdk.cls)
        else:
            self._service = partial(ExecutableVendor, spec=spec)
        self._fence = Fence.open(Path(sdk.fence))
        self._tokens = LeaseTokens(read_secret(Path(sdk.lease_key)))
        self._sessions: dict[int, _Session] = {}  # by process id
        self._slots = Slots(spec.limits.sessions)
        self._max_sessions = spec.limits.sessions + MAX_GREETING
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()

    def serve(self) -> None:
        """Listen and fork until SIGTERM, then let sessions finish for a moment."""
        os.set_blocking(self._wake_writer, False)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        adopt_descendants()
        alive = AliveSocket(Path(self._sdk.alive) / str(self._port))
        with closing(alive), _listen(self._spec.host, self._port) as listener:
            gc.freeze()  # keeps the collector from unsharing the pages of every child
            say_ready()
            log.info("listening", extra={"port": self._port, "service": self._spec.name})
            while not self._stopping:
                self._await_event(listener, alive)
                self._reap()
                self._end_overdue()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._sessions and time.monotonic() < deadline:
            time.sleep(0.02)
            self._reap()
            self._end_overdue()
        for pid in self._sessions:
            os.kill(pid, signal.SIGKILL)
        self._sessions.clear()
        while self._end_leftovers():
            time.sleep(0.01)

    def _stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _await_event(self, listener: socket.socket, alive: AliveSocket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.register(listener, selectors.EVENT_READ)
            selector.register(alive, selectors.EVENT_READ)
            ready = [key for key, _ in selector.select(CHECK_SECONDS if self._sessions else None)]
        for key in ready:  # without the selector, which sessions would inherit
            if key.fd == self._wake_reader:
                os.read(self._wake_reader, 512)
            elif key.fileobj is alive:
                alive.answer()
            else:
                self._accept(listener, alive)

    def _accept(self, listener: socket.socket, alive: AliveSocket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:  # the peer has gone, or we are out of descriptors for a moment
            log.warning("accept failed", extra={"error": error.strerror})
            time.sleep(0.05)
            return
        self._end_overdue()  # who came with an earlier lease must not slow this one down
        if len(self._sessions) >= self._max_sessions:
            self._drop_oldest_stranger()
        session = _Session(
            connection,
            generation=self._fence.generation(self._port),
            deadline=time.monotonic() + self._limits.session_time + OVERTIME_SECONDS,
        )
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            log.warning("fork failed", extra={"error": error.strerror})
            session.close()
            time.sleep(0.05)
            return
        if pid == 0:
            self._become_session(listener, alive, session, parent)
        self._sessions[pid] = session

    def _drop_oldest_stranger(self) -> None:
        """Make room: whoever has been greeting the longest without a token won't show one."""
        admitted = self._slots.holders()
        oldest = next((pid for pid in self._sessions if pid not in admitted), None)
        if oldest is not None:
            os.kill(oldest, signal.SIGKILL)
            os.waitpid(oldest, 0)
            self._sessions.pop(oldest).close()

    def _close_inherited(self, *others: socket.socket | AliveSocket) -> None:
        """Close what is the parent's alone."""
        for other in others:
            other.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        for session in self._sessions.values():
            session.close()

    def _become_session(
        self,
        listener: socket.socket,
        alive: AliveSocket,
        session: _Session,
        parent: int,
    ) -> None:
        """The child's whole life; never returns."""
        status = 1
        try:
            die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            # A group of its own: supervisord sends SIGTERM to that of the parent, which lets the
            # session finish and kills it after that; and a vendor's "kill 0" ends itself alone.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            reset_signals()
            catch_what_python_ignores()
            self._close_inherited(listener, alive)
            limit_resources(self._spec.limits)
            run_session(
                session.connection,
                service=self._service,
                tokens=self._tokens,
                workspaces=Path(self._sdk.workspaces),
                fence=self._fence,
                port=self._port,
                limits=self._limits,
                slots=self._slots,
                record=session.record,
            )
            status = 0
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            session = self._sessions.pop(pid, None)
            if session is not None:
                session.bury(pid, os.waitstatus_to_exitcode(status))
        self._end_leftovers()

    def _end_overdue(self) -> None:
        """Kill sessions whose lease or time is over, whatever they are doing.

        A session can't be relied on to end itself: native code may keep the interpreter's lock.
        Whoever connects under a lease does so after the fence has admitted it, so that a session
        that was forked under another generation can't be one of the present lease.
        """
        held, now = self._fence.generation(self._port), time.monotonic()
        for pid, session in self._sessions.items():
            if session.reason is None:
                if session.generation != held:
                    session.reason = NotAuthorised(
                        "the lease ended during the session", hint="take a new lease"
                    )
                elif now > session.deadline:
                    session.reason = TimedOut("the session took longer than the service allows")
                else:
                    continue
                os.kill(pid, signal.SIGKILL)

    def _end_leftovers(self) -> bool:
        """Kill what sessions that have ended left running; it has become our child."""
        leftovers = children_of_this_process() - self._sessions.keys()
        for pid in leftovers:
            log.warning("left running by a session", extra={"pid": pid})
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        return bool(leftovers)


def children_of_this_process() -> set[int]:
    """Process ids; empty where the kernel doesn't tell."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return set()
    return {int(pid) for pid in listed.split()}


def load_class(folder: Path, file: str, name: str) -> type[ServiceServer]:
    """The service's class; modules beside its file can be imported by it."""
    sys.path.append(str(folder))
    module = _load_module(folder / file)
    cls = getattr(module, name)
    if not (isinstance(cls, type) and issubclass(cls, ServiceServer)):
        sys.exit(f"{folder / file}: {name} must be a subclass of {ServiceServer.__name__}")
    return cls


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"socketpool_service_{path.stem}", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path}: can't be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen_on(host, port, BACKLOG)
    except OSError as error:
        sys.exit(f"can't listen on {host}:{port}: {error.strerror}")


def main(argv: list[str]) -> None:
    """Run the service that ``argv`` names."""
    log_to_stderr()
    Runner(read_spec(argv[0]), int(argv[1])).serve()


def read_spec(path: str) -> InstanceSpec:
    """The specification in a file; ends this process with a sentence when it can't be used."""
    try:
        spec = InstanceSpec.read(path)
        spec.require_sdk()
    except SpecRefused as error:
        sys.exit(str(error))
    return spec
