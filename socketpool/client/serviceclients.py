"""The client portions of the shipped kinds of service: upload, vendor, download."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from socketpool.archive.plan import make_plan
from socketpool.client.dial import Deadline
from socketpool.protocol.blocks import write_file_block
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import await_event, errors_of_service, greet
from socketpool.protocol.transfer import TRANSFER_ID_BYTES, FileTransfer
from socketpool.rsi.interfaces import TransferInterface, UploaderInterface

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from socketpool.archive.directory import DirectorySource
    from socketpool.archive.implode import Imploded
    from socketpool.archive.plan import Candidate, Hook, Plan
    from socketpool.archive.policy import Policy
    from socketpool.archive.sources import ZipSource
    from socketpool.client.api import Leased
    from socketpool.client.dial import Connection, Dial

GREETING_SECONDS = 15.0
PATIENCE_SECONDS = 30.0
"""How much longer than a session may last its service is waited for."""

MAX_RETURNED_BYTES = 64 << 30


class Portion(TransferInterface):
    """One session with one service of a lease; `assign` says with which."""

    def __init__(self) -> None:
        self._stream: Connection | None = None
        self._deadline: Deadline | None = None
        self.step_id = secrets.token_hex(16)
        """The step's identity, the same over all connections: it is done once, however many."""
        self.detail: dict[str, Any] = {}
        """What the service says of its work at the end."""
        self.opened = False
        """Whether a session was opened at least once."""
        self.confirmed = 0
        """Grows with whatever is known to have got through, over all connections."""

    def assign(
        self,
        leased: Leased,
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
        session_seconds = greet(self._stream, self._token, self.step_id) + PATIENCE_SECONDS
        self._stream.settimeout(session_seconds)
        self._deadline = Deadline(self._stream, session_seconds)
        self.opened = True

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

    def finish(self) -> None:
        """Wait for the service's verdict; raises what it says."""
        done = await_event(self.stream, "done", self._on_progress)
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
        self.confirmed += 1
        done, total = message.get("done"), message.get("total")
        if isinstance(done, int) and isinstance(total, int):
            self._progress(done, total, str(message.get("text", "")))


class UploadClient(Portion, UploaderInterface):
    """Sends the imploded archive: only the members that may leave.

    Override `is_implodable`, or give a hook, to keep more at home than the policy does.
    """

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


class VendorClient(Portion):
    """Has the vendor's code run, and shows its progress."""

    def transfer(self) -> None:
        """Wait until it is done."""
        self.finish()


class DownloadClient(Portion):
    """Fetches the processed members as an archive at ``target``."""

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
