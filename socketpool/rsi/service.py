"""The base of every service written with the SDK: one object per session, `transfer` in a lock."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socketpool.defaults import ARCHIVE_BYTES, SESSION_SECONDS
from socketpool.errors import ServiceFailed
from socketpool.protocol.frames import ConnectionCut, cut
from socketpool.protocol.session import send_event
from socketpool.rsi.conversation import conversation_with
from socketpool.rsi.interfaces import NotLocked, SemaphoreInterface
from socketpool.rsi.runner.workspace import Workspace, WorkspaceLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.protocol.frames import Stream


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may take: seconds it may last, and bytes of an archive either way."""

    session_time: float = SESSION_SECONDS
    archive_size: int = ARCHIVE_BYTES


def require_upload(workspace: Workspace) -> Path:
    """The archive that was uploaded; raises ServiceFailed when none was."""
    if not workspace.incoming.exists():
        raise ServiceFailed("nothing was uploaded in this lease", hint="run upload before vendor")
    return workspace.incoming


def require_client(stream: Stream) -> None:
    """Raise ConnectionCut when the client is known to have gone.

    A client whose connection was cut comes again at once; what is left of the attempt before must
    not do the work a second time when its turn comes.
    """
    if not isinstance(stream, socket.socket):
        return
    timeout = stream.gettimeout()
    try:
        stream.settimeout(0)
        gone = not stream.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return
    except OSError as error:
        raise cut(error) from None
    finally:
        stream.settimeout(timeout)
    if gone:
        raise ConnectionCut("the client has gone")


class ServiceServer(SemaphoreInterface, ABC):
    """The server's side of one session.

    The runner makes one in a process of its own after it has checked the lease's token, calls
    `run`, and tells the client the outcome: raise
    :class:`~socketpool.errors.ServiceFailed` with a sentence for the client to fail on purpose;
    of any other exception the client learns only the type.
    """

    def __init__(self, stream: Stream, workspace: Workspace, limits: SessionLimits) -> None:
        self.stream = stream
        self.workspace = workspace
        self.limits = limits
        self._semaphore = WorkspaceLock(workspace, wait_seconds=limits.session_time)
        self._locks = 0
        self._talking = threading.RLock()
        """Held for each exchange with the client, so that threads of the service may talk too."""
        self.converse("")

    def lock(self) -> None:
        """Keep the lease's other steps out of the workspace; raises TimedOut.

        Within `transfer` they are kept out anyway: there it returns at once.
        """
        self._semaphore.lock()
        self._locks += 1

    def unlock(self) -> None:
        """Take one `lock` of the service's own back; raises `NotLocked` when there is none.

        What the session itself locked stays locked until `transfer` has returned.
        """
        if self._locks == 0:
            raise NotLocked
        self._locks -= 1
        self._semaphore.unlock()

    @abstractmethod
    def transfer(self) -> None:
        """Do the session's work; the workspace is locked meanwhile."""

    def run(self) -> dict[str, Any]:
        """The whole session; returns what the client is told at its end.

        A step that an earlier attempt has finished is not done again: only what that told is told.
        """
        with self._session_lock():
            require_client(self.stream)
            finished = self.workspace.finished()
            if finished is not None:
                return finished
            self.work()
        return self.outcome()

    @contextmanager
    def _session_lock(self) -> Iterator[None]:
        """The session's own lock; what the service locked and left so ends with it."""
        with self._semaphore.locked():
            try:
                yield
            finally:
                while self._locks:
                    self.unlock()

    def work(self) -> None:
        """What is done while the workspace is locked: `transfer` and what belongs to it."""
        self.transfer()

    def outcome(self) -> dict[str, Any]:
        """Facts for the client's summary, as JSON can hold them."""
        return {}

    def converse(self, client: str) -> None:
        """Say what kind of client it talks to, as that named itself; see `conversation_with`."""
        self._conversation = conversation_with(client, self.stream, self.limits.archive_size)

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Show the client how far the work is."""
        with self._talking:
            send_event(self.stream, "progress", done=done, total=total, text=text[:1000])

    def send_line_block(self, text: str) -> None:
        """Send the client a text of at most 64 KiB; returns when the client has it.

        The shipped client of a vendor shows it in its summary; a subclass of its own may do
        something else with it (`VendorClient.received_line`).  Raises NotOffered in the session
        of an upload or a download, and ValueError for a longer text.
        """
        with self._talking:
            self._conversation.send_line(text)

    def read_line_block(self) -> str:
        """A text of the client's (`VendorClient.line_to_send`).

        Raises NothingSent when it has none, which is so of the shipped client, and NotOffered in
        the session of an upload or a download.
        """
        with self._talking:
            return self._conversation.read_line()

    def send_file_block(self, path: Path) -> str:
        """Send the client a file; returns its SHA-256 once the client has verified it.

        The shipped client of a vendor notes its size in the summary and drops it; a subclass of
        its own may keep it (`VendorClient.received_file`).  A client that lost its connection in
        a download gets the rest of the same file when it asks again.  Raises FileRefused when it
        is too large for the client, and NotOffered as `send_line_block` does.
        """
        with self._talking:
            return self._conversation.send_file(path)

    def write_file_block(self, target: Path) -> str:
        """Put a file of the client's (`VendorClient.file_to_send`) at ``target``, verified.

        Returns its SHA-256.  Raises NothingSent when the client has none, which is so of the
        shipped client of a vendor; FileRefused when it is larger than ``limits.archive_size`` or
        can't be stored; and NotOffered as `send_line_block` does.
        """
        with self._talking:
            return self._conversation.write_file(target)
