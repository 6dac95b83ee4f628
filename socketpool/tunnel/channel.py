"""A channel of an SSH connection as a stream that behaves like a socket.

What paramiko's own does not: sending from a view is linear, a connection that was cut is an error
and never a clean end, and `shutdown` wakes whoever reads.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast

from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko
    from typing_extensions import Buffer

    from socketpool.tunnel.pipe import Batch, Deliver, Pipe


class TunnelStream:
    """One stream to a port behind the host; one thread may read while another writes."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._pipe = cast("Pipe", channel.in_buffer)
        self._pipe.in_batches = True
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
        return bytes(self.recv_batch(size))

    def recv_into(self, buffer: Buffer) -> int:
        """As `recv`, into a buffer; returns how much."""
        view = memoryview(buffer).cast("B")
        start = 0
        for piece in self.recv_batch(len(view)).pieces:
            view[start : start + len(piece)] = piece
            start += len(piece)
        return start

    def recv_batch(self, size: int) -> Batch:
        """As `recv`, in the pieces in which it came, which saves putting them together."""
        with _as_socket():
            got = cast("Batch", self._channel.recv(size))
        if not got:
            self._check_end()
        return got

    def deliver_by(self, deliver: Deliver) -> None:
        """Have what comes passed on while a thread waits in `recv_batch`; see `Pipe`."""
        self._pipe.deliver_by(deliver)

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
