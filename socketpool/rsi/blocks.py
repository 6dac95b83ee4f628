"""Blocks on a stream: lines of text and whole files, each length-prefixed and bounded.

A block is a header of ten bytes (version, kind, length; big-endian) and its payload.  A file's
header is answered with *go* or a refusal before any of its bytes travel; they are followed by their
SHA-256, and the receiver answers with a receipt once size and digest agree and the file is in its
place.  Only then does `send_file_block` return.

Every wait is bounded by the stream's own timeout, which the caller sets with ``settimeout``.
"""

from __future__ import annotations

import enum
import hashlib
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from socketpool.errors import ArchiveError, SocketpoolError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

VERSION = 1
MAX_LINE_BYTES = 64 << 10
CHUNK = 256 << 10

_HEADER = struct.Struct(">BBQ")
_DIGEST_BYTES = hashlib.sha256().digest_size


class Kind(enum.IntEnum):
    """What a block holds."""

    LINE = 1
    FILE = 2
    GO = 3  # no payload: the receiver is ready for the file's bytes
    RECEIPT = 4  # no payload: the file arrived whole and is in place
    REFUSAL = 5  # a line saying why the file is not taken


class Stream(Protocol):
    """What blocks travel on: a socket, or anything that behaves like one."""

    def sendall(self, data: bytes | memoryview, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...


class ProtocolError(SocketpoolError):
    """The peer sent what the protocol doesn't allow."""

    exit_code = 7
    code = "protocol"


class ConnectionCut(SocketpoolError):
    """The connection ended in the middle of a block."""

    exit_code = 7
    code = "connection-cut"


class FileRefused(ArchiveError):
    """The receiver did not take the file."""

    code = "file-refused"


def send_line_block(stream: Stream, text: str) -> None:
    """Send one text of at most 64 KiB."""
    payload = text.encode()
    if len(payload) > MAX_LINE_BYTES:
        raise ValueError(f"a line block holds {MAX_LINE_BYTES} bytes at most")
    _send(stream, _HEADER.pack(VERSION, Kind.LINE, len(payload)) + payload)


def read_line_block(stream: Stream) -> str:
    """The peer's next text.  Raises ProtocolError, ConnectionCut or TimedOut."""
    kind, length = _read_header(stream)
    if kind is not Kind.LINE:
        raise ProtocolError(f"expected a line block, the peer sent {kind.name}")
    return _read_text(stream, length)


def send_file_block(
    stream: Stream,
    size: int,
    chunks: Iterable[bytes],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Send ``size`` bytes as one file; returns its SHA-256 once the receiver has it in place.

    Raises :class:`FileRefused` with the receiver's reason, or ValueError when the chunks don't add
    up to ``size``.
    """
    digest = hashlib.sha256()
    sent = 0
    _send(stream, _HEADER.pack(VERSION, Kind.FILE, size))
    _expect(stream, Kind.GO)
    for chunk in chunks:
        sent += len(chunk)
        if sent > size:
            break
        digest.update(chunk)
        _send(stream, chunk)
        if progress is not None:
            progress(sent, size)
    if sent != size:
        raise ValueError(f"file block of {size} bytes was given {sent}")
    _send(stream, digest.digest())
    _expect(stream, Kind.RECEIPT)
    return digest.hexdigest()


def write_file_block(
    stream: Stream,
    target: Path,
    *,
    max_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Receive one file and put it at ``target`` at once and whole; returns its SHA-256.

    ``target`` is replaced only after size and digest agree; until then the bytes are in
    ``<target>.part``.  Raises :class:`FileRefused`, having told the sender, when the file is larger
    than ``max_size``, can't be written or arrived damaged.
    """
    kind, size = _read_header(stream)
    if kind is not Kind.FILE:
        raise ProtocolError(f"expected a file block, the peer sent {kind.name}")
    part = target.with_name(target.name + ".part")
    try:
        if size > max_size:
            raise FileRefused(f"the file has {size} bytes; {max_size} are allowed")
        with _storing(), part.open("wb") as out:
            _send(stream, _HEADER.pack(VERSION, Kind.GO, 0))
            digest, failure = _receive(stream, out, size, progress)
            if _read_exactly(stream, _DIGEST_BYTES) != digest and failure is None:
                raise FileRefused("the file was damaged in transit")
            if failure is not None:
                raise failure
            out.flush()
            os.fsync(out.fileno())
            part.replace(target)
    except FileRefused as refusal:
        _refuse(stream, refusal.message)
        raise
    finally:
        part.unlink(missing_ok=True)
    _send(stream, _HEADER.pack(VERSION, Kind.RECEIPT, 0))
    return digest.hex()


def _receive(
    stream: Stream, out: BinaryIO, size: int, progress: Callable[[int, int], None] | None
) -> tuple[bytes, OSError | None]:
    """Take in ``size`` bytes even when they can't be stored, so that the refusal gets through."""
    digest = hashlib.sha256()
    failure: OSError | None = None
    left = size
    while left:
        chunk = _recv(stream, min(CHUNK, left))
        digest.update(chunk)
        left -= len(chunk)
        try:
            if failure is None:
                out.write(chunk)
        except OSError as error:
            failure = error
        if progress is not None:
            progress(size - left, size)
    return digest.digest(), failure


@contextmanager
def _storing() -> Iterator[None]:
    """A failing disk becomes a refusal; stream errors are typed by now and pass."""
    try:
        yield
    except OSError as error:
        raise FileRefused(f"the receiver can't store the file: {error.strerror}") from error


def _expect(stream: Stream, wanted: Kind) -> None:
    kind, length = _read_header(stream)
    if kind is Kind.REFUSAL:
        raise FileRefused(_read_text(stream, length), hint="nothing was changed")
    if kind is not wanted:
        raise ProtocolError(f"expected {wanted.name}, the peer sent {kind.name}")


def _refuse(stream: Stream, reason: str) -> None:
    payload = reason.encode()[:MAX_LINE_BYTES]
    _send(stream, _HEADER.pack(VERSION, Kind.REFUSAL, len(payload)) + payload)


def _read_header(stream: Stream) -> tuple[Kind, int]:
    version, number, length = _HEADER.unpack(_read_exactly(stream, _HEADER.size))
    if version != VERSION:
        raise ProtocolError(
            f"the peer speaks block protocol {version}, this side {VERSION}",
            hint="use the same release of socketpool on both sides",
        )
    try:
        return Kind(number), length
    except ValueError:
        raise ProtocolError(f"the peer sent a block of unknown kind {number}") from None


def _read_text(stream: Stream, length: int) -> str:
    if length > MAX_LINE_BYTES:
        raise ProtocolError(f"the peer announced a line of {length} bytes")
    try:
        return _read_exactly(stream, length).decode()
    except UnicodeDecodeError:
        raise ProtocolError("the peer sent a line that is not UTF-8") from None


def _read_exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += _recv(stream, size - len(data))
    return bytes(data)


def _recv(stream: Stream, size: int) -> bytes:
    try:
        data = stream.recv(size)
    except TimeoutError:
        raise TimedOut("the peer sent nothing within the time allowed") from None
    except OSError as error:
        raise ConnectionCut(f"the connection was lost: {error.strerror or error}") from None
    if not data:
        raise ConnectionCut("the peer closed the connection")
    return data


def _send(stream: Stream, data: bytes) -> None:
    try:
        stream.sendall(data)
    except TimeoutError:
        raise TimedOut("the peer took nothing within the time allowed") from None
    except OSError as error:
        raise ConnectionCut(f"the connection was lost: {error.strerror or error}") from None
