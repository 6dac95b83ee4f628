"""Frames on a stream: the header that every block begins with, and bounded reads and writes.

A header is ten bytes, big-endian: protocol version, kind, length.  Every wait is bounded by the
stream's own timeout, which whoever opened the stream sets with ``settimeout``.
"""

from __future__ import annotations

import enum
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from socketpool.errors import FileRefused, SocketpoolError, TimedOut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = 1
MAX_LINE_BYTES = 64 << 10

_HEADER = struct.Struct(">BBQ")


class Kind(enum.IntEnum):
    """What a block holds."""

    LINE = 1
    FILE = 2
    GO = 3  # no payload; the length says from which byte on the file is wanted
    RECEIPT = 4  # no payload: the file arrived whole and is in place
    REFUSAL = 5  # a line saying why the file is not taken


class Stream(Protocol):
    """What blocks travel on: a socket, a TLS socket, or anything that behaves like one."""

    def sendall(self, data: bytes | memoryview, /) -> object: ...
    def recv(self, size: int, /) -> bytes: ...


class ProtocolError(SocketpoolError):
    """The peer sent what the protocol doesn't allow."""

    exit_code = 7
    code = "protocol"


class ConnectionCut(SocketpoolError):
    """The connection ended in the middle of a session."""

    exit_code = 7
    code = "connection-cut"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="nothing was changed; try again")


class _SendingWatch:
    """Reports when the stream that it watches is in the middle of a block."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.report: Callable[[bool], None] = lambda _unfinished: None
        self.depth = 0

    def change(self, by: int) -> None:
        self.depth += by
        self.report(self.depth > 0)


_watch = _SendingWatch()


def watch_sending(stream: Stream, report: Callable[[bool], None]) -> None:
    """Have ``report`` told True before each block that is sent on this stream, and False after it.

    A block whose sending fails stays unfinished: whatever is sent after it, by another process for
    one, would be taken for a part of it.  A process watches one stream at most.
    """
    _watch.stream, _watch.report, _watch.depth = stream, report, 0


@contextmanager
def unfinished_block(stream: Stream) -> Iterator[None]:
    """The time in which the stream is in the middle of a block; see `watch_sending`.

    A peer that refuses the block, or answers it with something else, reads on with the next one.
    """
    if stream is not _watch.stream:
        yield
        return
    _watch.change(1)
    try:
        yield
    except (FileRefused, ProtocolError):
        _watch.change(-1)
        raise
    _watch.change(-1)


def send_header(stream: Stream, kind: Kind, length: int, payload: bytes = b"") -> None:
    """Send a header and what follows it at once; raises ConnectionCut or TimedOut."""
    send(stream, _HEADER.pack(VERSION, kind, length) + payload)


def read_header(stream: Stream) -> tuple[Kind, int]:
    """The next block's kind and length; raises ProtocolError, ConnectionCut or TimedOut."""
    version, number, length = _HEADER.unpack(read_exactly(stream, _HEADER.size))
    if version != VERSION:
        raise ProtocolError(
            f"the peer speaks block protocol {version}, this side {VERSION}",
            hint="use the same release of socketpool on both sides",
        )
    try:
        return Kind(number), length
    except ValueError:
        raise ProtocolError(f"the peer sent a block of unknown kind {number}") from None


def read_text(stream: Stream, length: int) -> str:
    """The text of a LINE or a REFUSAL."""
    if length > MAX_LINE_BYTES:
        raise ProtocolError(f"the peer announced a line of {length} bytes")
    try:
        return read_exactly(stream, length).decode()
    except UnicodeDecodeError:
        raise ProtocolError("the peer sent a line that is not UTF-8") from None


def read_exactly(stream: Stream, size: int) -> bytes:
    """So many bytes; raises ConnectionCut or TimedOut."""
    data = bytearray()
    while len(data) < size:
        data += receive(stream, size - len(data))
    return bytes(data)


def receive(stream: Stream, size: int) -> bytes:
    """At least one byte, at most ``size``; raises ConnectionCut or TimedOut."""
    try:
        data = stream.recv(size)
    except TimeoutError:
        raise TimedOut("the peer sent nothing within the time allowed") from None
    except (OSError, EOFError) as error:
        raise cut(error) from None
    if not data:
        raise ConnectionCut("the peer closed the connection")
    return data


def send(stream: Stream, data: bytes | memoryview) -> None:
    """All of the data; raises ConnectionCut or TimedOut."""
    with unfinished_block(stream):
        try:
            stream.sendall(data)
        except TimeoutError:
            raise TimedOut("the peer took nothing within the time allowed") from None
        except (OSError, EOFError) as error:  # a channel of paramiko's raises EOFError
            raise cut(error) from None


def cut(error: OSError | EOFError) -> ConnectionCut:
    """What a failed call on a stream means."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConnectionCut(f"the connection was lost: {reason or 'it ended'}")
