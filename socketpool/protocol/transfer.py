"""The sending of one file, over as many connections as it takes.

A file's transfer has an identity; when the connection is cut, sending the same file again under the
same identity goes on where the receiver has got to.
"""

from __future__ import annotations

import os
import select
import socket
from enum import StrEnum
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import Machine
from socketpool.errors import FileRefused, SourceChanged, TimedOut
from socketpool.protocol.filesource import Digest, FileSource, pieces_from, read_range
from socketpool.protocol.frames import (
    ConnectionCut,
    Kind,
    ProtocolError,
    Stream,
    cut,
    read_header,
    read_text,
    send,
    send_header,
    unfinished_block,
)
from socketpool.system.filerange import FileRange

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int], None]

TRANSFER_ID_BYTES = 16


class TransferState(StrEnum):
    """Where the transfer of one file is, as its sender sees it."""

    ANNOUNCED = "announced"  # the header is sent; the receiver decides
    FLOWING = "flowing"  # bytes travel
    SENT = "sent"  # all bytes and the digest are out; the receiver verifies
    STORED = "stored"  # acknowledged: verified and in place
    REFUSED = "refused"
    INTERRUPTED = "interrupted"  # the connection was cut; may be announced again


class TransferEvent(StrEnum):
    """What moves a transfer on."""

    GO = "go"
    END = "end of file"
    RECEIPT = "receipt"
    REFUSAL = "refusal"
    CUT = "cut"
    AGAIN = "again"


TRANSFER = Machine[TransferState, TransferEvent](
    {
        (TransferState.ANNOUNCED, TransferEvent.GO): TransferState.FLOWING,
        (TransferState.ANNOUNCED, TransferEvent.REFUSAL): TransferState.REFUSED,
        (TransferState.ANNOUNCED, TransferEvent.CUT): TransferState.INTERRUPTED,
        (TransferState.FLOWING, TransferEvent.END): TransferState.SENT,
        (TransferState.FLOWING, TransferEvent.CUT): TransferState.INTERRUPTED,
        (TransferState.SENT, TransferEvent.RECEIPT): TransferState.STORED,
        (TransferState.SENT, TransferEvent.REFUSAL): TransferState.REFUSED,
        (TransferState.SENT, TransferEvent.CUT): TransferState.INTERRUPTED,
        (TransferState.INTERRUPTED, TransferEvent.AGAIN): TransferState.ANNOUNCED,
        # The session was cut after the receipt: its step is repeated, and finds the same file.
        (TransferState.STORED, TransferEvent.AGAIN): TransferState.ANNOUNCED,
    }
)

_ANSWERS = {
    Kind.GO: TransferEvent.GO,
    Kind.RECEIPT: TransferEvent.RECEIPT,
    Kind.REFUSAL: TransferEvent.REFUSAL,
}


class UnexpectedLine(ProtocolError):
    """A line came where part of a file's transfer was expected; it may say why."""

    code = "unexpected-line"

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class FileTransfer:
    """The sending of one file, over as many connections as it takes."""

    def __init__(
        self, source: FileSource, transfer_id: bytes, progress: Progress | None = None
    ) -> None:
        if len(transfer_id) != TRANSFER_ID_BYTES:
            raise ValueError(f"a transfer's identity has {TRANSFER_ID_BYTES} bytes")
        self.state = TransferState.INTERRUPTED
        self.confirmed = 0
        """Bytes that the receiver said it has."""
        self.sent = 0
        """Bytes sent so far, those sent twice included."""
        self._source = source
        self._id = transfer_id
        self._progress = progress

    def run(self, stream: Stream) -> str:
        """Send what the receiver lacks; returns the file's SHA-256 once it is in place there.

        Raises :class:`FileRefused` with the receiver's reason; ConnectionCut or TimedOut, after
        which it may be called again with another stream; SourceChanged when the source gives
        another number of bytes than it promised; UnexpectedLine when the receiver says
        something else.
        """
        self._step(TransferEvent.AGAIN)
        try:
            with unfinished_block(stream):
                send_header(stream, Kind.FILE, self._source.size, self._id)
                offset = self._answer(stream)
                if offset > self._source.size:
                    raise ProtocolError(f"the peer asks for byte {offset} of {self._source.size}")
                self.confirmed = offset
                digest = Digest(self._source)
                self._flow(stream, offset)
                send(stream, digest.result())
            self._step(TransferEvent.END)
            self._answer(stream)
        except (ConnectionCut, TimedOut):
            self._step(TransferEvent.CUT)
            raise
        return digest.result().hex()

    def _flow(self, stream: Stream, offset: int) -> None:
        done = offset
        for piece in pieces_from(self._source, offset):
            if isinstance(piece, FileRange):
                _send_range(stream, piece)
                done += piece.length
                self.sent += piece.length
            else:
                send(stream, memoryview(piece))  # some streams send slices: no copies of the rest
                done += len(piece)
                self.sent += len(piece)
            if self._progress is not None:
                self._progress(done, self._source.size)

    def _answer(self, stream: Stream) -> int:
        kind, length = read_header(stream)
        event = _ANSWERS.get(kind)
        if event is None or not TRANSFER.allows(self.state, event):
            raise unexpected(stream, kind, length, f"for a file that is {self.state}")
        reason = read_text(stream, length) if event is TransferEvent.REFUSAL else ""
        self._step(event)
        if event is TransferEvent.REFUSAL:
            raise FileRefused(reason, hint="nothing was changed")
        return length

    def _step(self, event: TransferEvent) -> None:
        self.state = TRANSFER.after(self.state, event)


def unexpected(stream: Stream, kind: Kind, length: int, where: str) -> ProtocolError:
    """What to raise for a block that does not belong there; a line in its place is read."""
    message = f"the peer sent {kind.name} {where}"
    if kind is Kind.LINE:
        return UnexpectedLine(message, read_text(stream, length))
    return ProtocolError(message)


def _send_range(stream: Stream, piece: FileRange) -> None:
    """Straight from the page cache where the transport is a plain socket."""
    if type(stream) is not socket.socket:
        for chunk in read_range(piece):
            send(stream, memoryview(chunk))
        return
    fd, offset, left = piece
    while left:
        try:
            moved = os.sendfile(stream.fileno(), fd, offset, left)
        except BlockingIOError:
            _await_room(stream)
            continue
        except OSError as error:
            raise cut(error) from None
        if not moved:
            raise SourceChanged
        offset += moved
        left -= moved


def _await_room(stream: socket.socket) -> None:
    """A socket with a timeout doesn't block in the kernel; wait as its other methods do."""
    timeout = stream.gettimeout()
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimedOut("the peer took nothing within the time allowed")
