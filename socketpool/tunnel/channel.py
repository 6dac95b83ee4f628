"""A channel of an SSH connection as a stream that behaves like a socket.

What paramiko's own does not: small reads stay cheap (its buffer moves all that is left at each),
sending from a view is linear, a connection that was cut is an error and never a clean end, and
`shutdown` wakes whoever reads.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast

from paramiko.ssh_exception import SSHException

from socketpool.tunnel.wire import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko
    from typing_extensions import Buffer

BULK = 32 << 10
GATHERING = 0.001
"""After a read of so many bytes, so many seconds pass before the next: paramiko's thread then takes
in several packets before it has to hand over, which saves a quarter of the CPU of a download."""


class TunnelStream:
    """One stream to a port behind the host; one thread may read while another writes."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._left = memoryview(b"")
        self._in_bulk = False
        self._readers = 0
        self._closing = False
        self._lock = threading.Lock()
        self._ended = False  # by a shutdown of ours

    def settimeout(self, seconds: float | None) -> None:
        """Bound each wait of a call."""
        self._channel.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """The bound of each wait."""
        return self._channel.gettimeout()

    def recv(self, size: int) -> bytes:
        """Some bytes, or none at the end; raises ConnectionResetError when it was cut."""
        if not self._left:
            # All there is at once: what stays in paramiko's buffer is moved at each read.
            if self._in_bulk:
                time.sleep(GATHERING)
            with _as_socket():
                got = self._channel.recv(WINDOW)
            self._in_bulk = len(got) >= BULK
            if not got:
                self._check_end()
            if len(got) <= size:
                return got
            self._left = memoryview(got)
        data = bytes(self._left[:size])
        self._left = self._left[size:]
        return data

    def recv_into(self, buffer: Buffer) -> int:
        """As `recv`, into a buffer; returns how much."""
        view = memoryview(buffer).cast("B")
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def sendall(self, data: Buffer) -> None:
        """All of it; raises BrokenPipeError when the other side takes no more."""
        view = memoryview(data).cast("B")
        while view:
            with _as_socket():
                sent = self._channel.send(cast("bytes", view))
            if not sent:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            view = view[sent:]

    def shutdown(self, how: int) -> None:
        """As of sockets: SHUT_WR is told to the other side, which may go on sending."""
        if how in {socket.SHUT_RD, socket.SHUT_RDWR}:
            self._ended = True
        if how == socket.SHUT_RD:
            return
        if how == socket.SHUT_WR:
            with _as_socket():
                self._channel.shutdown_write()
        else:
            self._close()  # wakes who reads, which the channel's shutdown does not

    def makefile(self, mode: str = "rb", *_: object, **__: object) -> BinaryIO:
        """A buffered reader; the stream stays open until that is closed too."""
        if mode != "rb":
            raise ValueError("only to read bytes")
        with self._lock:
            self._readers += 1
        return cast("BinaryIO", io.BufferedReader(_Reader(self)))

    def close(self) -> None:
        """Close it, once all its readers are."""
        with self._lock:
            self._closing = True
            if self._readers:
                return
        self._close()

    def _release(self) -> None:
        with self._lock:
            self._readers -= 1
            close = self._closing and not self._readers
        if close:
            self._close()

    def _close(self) -> None:
        with suppress(OSError), _as_socket():  # to a host that is gone nothing can be told
            self._channel.close()

    def _check_end(self) -> None:
        if not (self._ended or self._channel.eof_received):
            raise ConnectionResetError(errno.ECONNRESET, "the SSH connection was cut")

    def __enter__(self) -> TunnelStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _as_socket() -> Iterator[None]:
    """Raise what a socket would: paramiko's errors are others, and some are EOFError."""
    try:
        yield
    except (EOFError, SSHException) as error:
        raise ConnectionResetError(
            errno.ECONNRESET, f"the SSH connection was cut {error}"
        ) from None


class _Reader(io.RawIOBase):
    def __init__(self, stream: TunnelStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        return self._stream.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream._release()
