"""Carries one local connection over one stream of a tunnel, both ways at once.

Each direction ends by itself, so that an answer still comes to who has said all (half-close).  When
one fails, the local side is reset: whoever reads there must not take what it has for the whole.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.tunnel.threads import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.channel import TunnelStream
    from socketpool.tunnel.pipe import Batch

CHUNK = 1 << 20
_LINGER_RESET = struct.pack("ii", 1, 0)  # close() sends RST, tcp(7)


class _Stopped(Exception):
    """The other direction has failed."""


def reset(connection: socket.socket) -> None:
    """Close a TCP connection so that its peer sees an error."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    connection.close()


def relay(local: socket.socket, remote: TunnelStream) -> None:
    """Carry bytes until both directions have ended, then close both.

    Raises OSError when there is no descriptor for it; ``local`` is open still then.
    """
    with remote:
        with suppress(OSError):
            local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        local.settimeout(0)
        _Relay(local, remote).run()


class _Relay:
    def __init__(self, local: socket.socket, remote: TunnelStream) -> None:
        self._local = local
        self._remote = remote
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._failed = False

    def run(self) -> None:
        try:
            up = start("relay-up", self._guard, self._up)
        except RuntimeError:  # no more threads for this account
            self._failed = True
            self._end()
            return
        try:
            self._guard(self._down)
        finally:
            up.join()
            self._end()

    def _end(self) -> None:
        os.close(self._stop)
        if self._failed:
            reset(self._local)
        else:
            self._local.close()

    def _guard(self, direction: Callable[[], None]) -> None:
        try:
            direction()
        except (_Stopped, OSError):
            self._fail()
        except BaseException:  # a bug, which must not look like a clean end
            self._fail()
            raise

    def _fail(self) -> None:
        self._failed = True
        os.eventfd_write(self._stop, 1)
        self._remote.close()  # wakes the other direction too, if it waits there

    def _up(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        while count := self._receive(buffer):
            self._remote.sendall(buffer[:count])
        self._remote.shutdown(socket.SHUT_WR)

    def _down(self) -> None:
        self._remote.deliver_by(self._local.sendmsg)
        while batch := self._remote.recv_batch(CHUNK):
            self._send(batch)
        self._local.shutdown(socket.SHUT_WR)

    def _receive(self, buffer: memoryview) -> int:
        while True:
            try:
                return self._local.recv_into(buffer)
            except BlockingIOError:
                self._await(select.POLLIN)

    def _send(self, batch: Batch) -> None:
        while batch.pieces:
            try:
                batch.skip(self._local.sendmsg(batch.pieces))
            except BlockingIOError:
                self._await(select.POLLOUT)

    def _await(self, event: int) -> None:
        """Until the local side is ready; raises _Stopped when the other direction has failed."""
        poll = select.poll()
        poll.register(self._local, event)
        poll.register(self._stop, select.POLLIN)
        if any(fd == self._stop for fd, _ in poll.poll()):
            raise _Stopped
