"""Blocks on a stream: lines of text and whole files, blocking in meaning.

A call that sends returns when the peer has it: a file block is acknowledged only after its size and
SHA-256 were verified and the file is in its place.  A file's transfer has an identity; when the
connection is cut, sending the same file again under the same identity goes on where the receiver
has got to.
"""

from __future__ import annotations

import glob
import hashlib
import os
import select
import shutil
import socket
import threading
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

from socketpool.archive.implode import FileRange
from socketpool.core.lifecycle import Machine
from socketpool.errors import ArchiveError, TimedOut
from socketpool.rsi.frames import (
    MAX_LINE_BYTES,
    ConnectionCut,
    Kind,
    ProtocolError,
    Stream,
    cut,
    read_exactly,
    read_header,
    read_text,
    receive,
    send,
    send_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Progress = Callable[[int, int], None]

CHUNK = 256 << 10
PIECE = 4 << 20
"""Bytes handed to the kernel at once; progress is told after each."""

TRANSFER_ID_BYTES = 16
PART_SUFFIX = ".part"

_DIGEST_BYTES = hashlib.sha256().digest_size
_ASIDE_FROM = 1 << 20  # smaller files are digested before their thread would have started


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


class FileRefused(ArchiveError):
    """The receiver did not take the file."""

    code = "file-refused"


class SourceChanged(ArchiveError):
    """What is being sent is not what it was when its sending began."""

    code = "source-changed"

    def __init__(self) -> None:
        super().__init__(
            "the file changed while it was being sent", hint="leave it alone and start again"
        )


class UnexpectedLine(ProtocolError):
    """A line came where part of a file's transfer was expected; it may say why."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class FileSource(Protocol):
    """Bytes to send, as often as it takes: each call of ``segments`` gives the same."""

    @property
    def size(self) -> int:
        """Bytes in all segments together."""

    def segments(self) -> Iterator[bytes | FileRange]:
        """The bytes in order, or where in an open file they are."""


class OpenFile(NamedTuple):
    """An open file as a source; it must not change meanwhile."""

    fd: int
    size: int

    def segments(self) -> Iterator[bytes | FileRange]:
        """The file, whole."""
        yield FileRange(self.fd, 0, self.size)


def send_line_block(stream: Stream, text: str) -> None:
    """Send one text of at most 64 KiB."""
    payload = text.encode()
    if len(payload) > MAX_LINE_BYTES:
        raise ValueError(f"a line block holds {MAX_LINE_BYTES} bytes at most")
    send_header(stream, Kind.LINE, len(payload), payload)


def read_line_block(stream: Stream) -> str:
    """The peer's next text.  Raises ProtocolError, ConnectionCut or TimedOut."""
    kind, length = read_header(stream)
    if kind is not Kind.LINE:
        raise ProtocolError(f"expected a line block, the peer sent {kind.name}")
    return read_text(stream, length)


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
        another number of bytes than it promised.
        """
        self._step(TransferEvent.AGAIN)
        try:
            send_header(stream, Kind.FILE, self._source.size, self._id)
            offset = self._answer(stream)
            if offset > self._source.size:
                raise ProtocolError(f"the peer asks for byte {offset} of {self._source.size}")
            self.confirmed = offset
            digest = _Digest(self._source)
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
        for piece in _from(self._source, offset):
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
            raise _unexpected(stream, kind, length, f"for a file that is {self.state}")
        reason = read_text(stream, length) if event is TransferEvent.REFUSAL else ""
        self._step(event)
        if event is TransferEvent.REFUSAL:
            raise FileRefused(reason, hint="nothing was changed")
        return length

    def _step(self, event: TransferEvent) -> None:
        self.state = TRANSFER.after(self.state, event)


def send_file_block(
    stream: Stream,
    source: FileSource,
    *,
    transfer_id: bytes = bytes(TRANSFER_ID_BYTES),
    progress: Progress | None = None,
) -> str:
    """Send one file over one connection; see `FileTransfer.run`."""
    return FileTransfer(source, transfer_id, progress).run(stream)


def write_file_block(
    stream: Stream, target: Path, *, max_size: int, progress: Progress | None = None
) -> str:
    """Receive one file and put it at ``target`` at once and whole; returns its SHA-256.

    ``target`` is replaced only after size and digest agree.  Until then the bytes are beside it,
    and stay there when the connection is cut, for the same transfer to go on.  Raises
    :class:`FileRefused`, having told the sender, when the file is larger than ``max_size``, can't
    be stored or arrived damaged.
    """
    kind, size = read_header(stream)
    if kind is not Kind.FILE:
        raise _unexpected(stream, kind, size, "for a file block")
    transfer_id = read_exactly(stream, TRANSFER_ID_BYTES)
    part = target.with_name(f".{target.name}.{transfer_id.hex()}{PART_SUFFIX}")
    try:
        if size > max_size:
            raise FileRefused(f"the file has {size} bytes; {max_size} are allowed")
        with _storing():
            _forget_others(target, part)
            with part.open("a+b", buffering=0) as out:
                digest = _receive(stream, out, size, progress)
                os.fsync(out.fileno())
            part.replace(target)
    except FileRefused as refusal:
        part.unlink(missing_ok=True)
        payload = refusal.message.encode()[:MAX_LINE_BYTES]
        send_header(stream, Kind.REFUSAL, len(payload), payload)
        raise
    send_header(stream, Kind.RECEIPT, 0)
    return digest.hex()


def _unexpected(stream: Stream, kind: Kind, length: int, where: str) -> ProtocolError:
    message = f"the peer sent {kind.name} {where}"
    if kind is Kind.LINE:
        return UnexpectedLine(message, read_text(stream, length))
    return ProtocolError(message)


def _receive(stream: Stream, out: BinaryIO, size: int, progress: Progress | None) -> bytes:
    """Take in what is missing of the file, verified; raises FileRefused."""
    offset = out.seek(0, os.SEEK_END)
    if offset > size:
        out.truncate(0)
        offset = 0
    if shutil.disk_usage(out.fileno()).free < size - offset:
        raise FileRefused(f"the receiver has no room for {size - offset} bytes")
    digest = hashlib.sha256()
    out.seek(0)
    while chunk := out.read(CHUNK):
        digest.update(chunk)
    send_header(stream, Kind.GO, offset)
    left = size - offset
    failure: OSError | None = None
    while left:
        # Even what can't be stored is taken in, so that the refusal gets through.
        data = receive(stream, min(CHUNK, left))
        digest.update(data)
        left -= len(data)
        if failure is None:
            failure = _write(out, data)
        if progress is not None:
            progress(size - left, size)
    agrees = read_exactly(stream, _DIGEST_BYTES) == digest.digest()
    if failure is not None:
        raise failure
    if not agrees:
        raise FileRefused("the file was damaged in transit")
    return digest.digest()


def _write(out: BinaryIO, data: bytes) -> OSError | None:
    view = memoryview(data)
    try:
        while view:
            view = view[out.write(view) :]
    except OSError as error:
        return error
    return None


@contextmanager
def _storing() -> Iterator[None]:
    """A failing disk becomes a refusal; what fails on the stream is typed by now and passes."""
    try:
        yield
    except OSError as error:
        raise FileRefused(f"the receiver can't store the file: {error.strerror}") from error


def _forget_others(target: Path, part: Path) -> None:
    """Another transfer to the same place has begun: what is left of earlier ones is of no use."""
    for other in target.parent.glob(f".{glob.escape(target.name)}.*{PART_SUFFIX}"):
        if other != part:
            other.unlink(missing_ok=True)


def _from(source: FileSource, offset: int) -> Iterator[bytes | FileRange]:
    """The source from an offset on, in pieces; raises SourceChanged when its size is not as
    promised.

    One byte too many is noticed before it is handed out.
    """
    position = 0
    for segment in source.segments():
        length = segment.length if isinstance(segment, FileRange) else len(segment)
        skipped = min(length, max(0, offset - position))
        position += length
        if position > source.size:
            break
        for start in range(skipped, length, PIECE):
            count = min(PIECE, length - start)
            if isinstance(segment, FileRange):
                yield FileRange(segment.fd, segment.offset + start, count)
            else:
                yield segment[start : start + count]
    if position != source.size:
        raise SourceChanged


def _send_range(stream: Stream, piece: FileRange) -> None:
    """Straight from the page cache where the transport is a plain socket."""
    if type(stream) is not socket.socket:
        for chunk in _read_range(piece):
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


def _read_range(piece: FileRange) -> Iterator[bytes]:
    offset, end = piece.offset, piece.offset + piece.length
    while offset < end:
        chunk = os.pread(piece.fd, min(CHUNK, end - offset), offset)
        if not chunk:
            raise SourceChanged
        yield chunk
        offset += len(chunk)


class _Digest:
    """The SHA-256 of a source, made beside the sending: hashing lets other threads run."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._digest = b""
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if source.size < _ASIDE_FROM:
            self._make()
        else:
            self._thread = threading.Thread(target=self._make, daemon=True, name="digest")
            self._thread.start()

    def result(self) -> bytes:
        """The digest; raises what reading the source raised."""
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._digest

    def _make(self) -> None:
        digest = hashlib.sha256()
        try:
            for piece in _from(self._source, 0):
                if isinstance(piece, FileRange):
                    for chunk in _read_range(piece):
                        digest.update(chunk)
                else:
                    digest.update(piece)
        except Exception as error:  # noqa: BLE001 - raised again by result()
            self._failure = error
        self._digest = digest.digest()
