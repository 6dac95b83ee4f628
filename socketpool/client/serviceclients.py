"""The client portions of the shipped kinds of service: upload, vendor, download."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socketpool.archive.plan import make_plan
from socketpool.client.dial import Deadline
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import FileRefused
from socketpool.protocol.blocks import (
    check_line,
    read_line_block,
    send_file_block,
    send_line_block,
    write_file_block,
)
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import await_event, errors_of_service, greet, send_answer
from socketpool.protocol.transfer import TRANSFER_ID_BYTES, FileTransfer
from socketpool.rsi.interfaces import TransferInterface, UploaderInterface

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from socketpool.archive.directory import DirectorySource
    from socketpool.archive.implode import Imploded
    from socketpool.archive.plan import Candidate, Hook, Plan
    from socketpool.archive.policy import Policy
    from socketpool.archive.sources import ZipSource
    from socketpool.client.answers import LeasedService
    from socketpool.client.dial import Connection, Dial

GREETING_SECONDS = 15.0
SESSION_GRACE_SECONDS = 30.0
"""How long the client waits for the service after the session's time is up, in seconds."""

MAX_RETURNED_BYTES = 64 << 30


MAX_LINES, LINE_CHARS = 50, 500
"""How many lines of a vendor are kept, and how many characters of each."""


class ServiceClient(TransferInterface):
    """One session with one service of a lease; `assign` says with which."""

    kind = ""
    """The kind of service that it is made for."""

    def __init__(self) -> None:
        self._stream: Connection | None = None
        self._deadline: Deadline | None = None
        self.step_id = secrets.token_hex(16)
        """The step's identity, the same over all connections: it is done once, however many."""
        self.detail: dict[str, Any] = {}
        """The service's final message."""
        self.lines: list[str] = []
        """Lines that the service sent during its work, for the summary."""
        self.sessions = 0
        """How many sessions were opened so far."""
        self.confirmed = 0
        """Counts the data that arrived, over all connections; it grows with any progress."""

    def assign(
        self,
        leased: LeasedService,
        token: str,
        dial: Dial,
        progress: Callable[[int, int, str], None],
    ) -> None:
        """Say which service it works with, how that is reached and where progress goes."""
        self._leased = leased
        self._token = token
        self._dial = dial
        self._progress = progress

    def connect(self) -> None:
        """See `TransferInterface.connect`; raises PoolUnreachable or NotAuthorised."""
        self._stream = self._dial(self._leased.host, self._leased.port)
        self._stream.settimeout(GREETING_SECONDS)
        session_seconds = greet(self._stream, self._token, self.step_id, self.kind)
        session_seconds += SESSION_GRACE_SECONDS
        self._stream.settimeout(session_seconds)
        self._deadline = Deadline(self._stream, session_seconds)
        self.sessions += 1
        self._events = 0

    @property
    def stream(self) -> Connection:
        """The open session."""
        if self._stream is None:
            raise ConnectionCut("the session is not open")
        return self._stream

    @property
    def overdue(self) -> bool:
        """Whether the last session was ended because it took longer than it may."""
        return self._deadline is not None and self._deadline.passed

    def finish(self, others: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Wait for the service's verdict; raises what it says.  See `await_event`."""
        done = await_event(self.stream, "done", self._on_progress, others)
        detail = done.get("detail")
        self.detail = detail if isinstance(detail, dict) else {}

    def close(self) -> None:
        """See `TransferInterface.close`."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _on_progress(self, message: dict[str, Any]) -> None:
        # A step that is repeated reports the same work again: only more than ever before counts.
        self._events += 1
        self.confirmed = max(self.confirmed, self._events)
        done, total = message.get("done"), message.get("total")
        if isinstance(done, int) and isinstance(total, int):
            self._progress(done, total, str(message.get("text", "")))


class UploadClient(ServiceClient, UploaderInterface):
    """Sends the imploded archive: only the members that may leave.

    Override `is_implodable`, or give a hook, to keep more at home than the policy does.
    """

    kind = ServiceKind.UPLOAD

    def __init__(self, hook: Hook | None = None) -> None:
        super().__init__()
        self._hook = hook

    def is_implodable(self, member: Candidate) -> bool:
        """See `UploaderInterface.is_implodable`."""
        return self._hook is not None and self._hook(member)

    def prepare(self, source: ZipSource | DirectorySource, policy: Policy) -> Plan:
        """Decide what leaves and check it; the source must stay open until it was sent.

        Raises :class:`~socketpool.errors.ArchiveError`.
        """
        own = self._hook is not None or type(self).is_implodable is not UploadClient.is_implodable
        plan = make_plan(source, policy, self.is_implodable if own else None)
        self.imploded: Imploded = source.implode(plan, verify=True)
        # One identity for all attempts: after a cut the service goes on where it has got to.
        identity = os.urandom(TRANSFER_ID_BYTES)
        self._transfer = FileTransfer(self.imploded, identity, self._on_sent)
        return plan

    def transfer(self) -> None:
        """Send the archive as one file block."""
        with errors_of_service():
            self._transfer.run(self.stream)
        self.finish()

    def _on_sent(self, done: int, total: int) -> None:
        self.confirmed = self._transfer.confirmed
        self._progress(done, total, "")


class VendorClient(ServiceClient):
    """Has the vendor's code run, shows its progress, and answers it.

    The vendor speaks first: it sends lines and files, and asks for them.  Override `received_line`,
    `received_file`, `line_to_send` and `file_to_send` to talk with a vendor of your own.  An
    attempt at the step that is cut short is followed by another one, in which the vendor begins
    anew, so that all of them may be called again.
    """

    kind = ServiceKind.VENDOR
    max_file_bytes = 1 << 30
    """The largest file that is taken from the vendor."""

    def connect(self) -> None:
        """See `TransferInterface.connect`."""
        super().connect()
        self._begun = False

    def transfer(self) -> None:
        """Answer the vendor until it is done."""
        self.finish(
            {
                "line": self._take_line,
                "file": self._take_file,
                "line-wanted": self._give_line,
                "file-wanted": self._give_file,
            }
        )

    def received_line(self, text: str) -> None:
        """The vendor sent a line, which the summary shows unless this is overridden."""
        self.tell(text)

    def received_file(self, path: Path) -> None:
        """The vendor sent a file, which is deleted afterwards: move it to keep it."""
        self.tell(f"sent a file of {path.stat().st_size:,} bytes, which was not kept")

    def line_to_send(self) -> str | None:
        """The line that the vendor asks for, of at most 64 KiB; None when there is none."""
        return None

    def file_to_send(self) -> Path | None:
        """The file that the vendor asks for; None when there is none."""
        return None

    def tell(self, line: str) -> None:
        """Add a line to what the summary shows of this step; too many are left out."""
        if len(self.lines) < MAX_LINES:
            self.lines.append(line[:LINE_CHARS])

    def _take_line(self) -> None:
        self._begin()
        self.received_line(read_line_block(self.stream))
        send_answer(self.stream, answer=True)

    def _take_file(self) -> None:
        self._begin()
        with tempfile.TemporaryDirectory(prefix="socketpool-") as folder:
            path = Path(folder) / "file"
            # A refusal is told to the vendor, which decides whether it goes on without.
            with suppress(FileRefused), errors_of_service():
                write_file_block(self.stream, path, max_size=self.max_file_bytes)
                self.received_file(path)
                send_answer(self.stream, answer=True)

    def _give_line(self) -> None:
        self._begin()
        line = self.line_to_send()
        if line is not None:
            check_line(line)
        send_answer(self.stream, answer=line is not None)
        if line is not None:
            send_line_block(self.stream, line)

    def _give_file(self) -> None:
        self._begin()
        path = self.file_to_send()
        if path is None:
            send_answer(self.stream, answer=False)
            return
        with path.open("rb") as file:
            source = OpenFile(file.fileno(), os.fstat(file.fileno()).st_size)
            send_answer(self.stream, answer=True)
            with suppress(FileRefused), errors_of_service():
                send_file_block(self.stream, source)

    def _begin(self) -> None:
        """Something got through; an attempt begins with nothing of an earlier one's lines."""
        self.confirmed += 1
        if not self._begun:
            self._begun = True
            self.lines.clear()


class DownloadClient(ServiceClient):
    """Fetches the processed members as an archive at ``target``."""

    kind = ServiceKind.DOWNLOAD

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = target

    def transfer(self) -> None:
        """Receive the archive of changed members."""
        with errors_of_service():
            write_file_block(
                self.stream, self._target, max_size=MAX_RETURNED_BYTES, progress=self._on_received
            )
        self.finish()

    def _on_received(self, done: int, total: int) -> None:
        self.confirmed = max(self.confirmed, done)
        self._progress(done, total, "")
