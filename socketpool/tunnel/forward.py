"""A listener on loopback whose connections go through a tunnel.

It stays while the tunnel is down: a new connection then waits for it, bounded, and is reset when
it doesn't come back in time.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.errors import SocketpoolError
from socketpool.tunnel.relay import relay, reset
from socketpool.tunnel.threads import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.channel import TunnelStream

    Dial = Callable[[str, int], TunnelStream]

    Route = Callable[[socket.socket], TunnelStream | None]
    """Finds the way for an accepted connection; None when that was refused and closed already."""

BACKLOG = 256
MAX_CONNECTIONS = 512
"""So many at once; others wait in the backlog."""


def to_port(dial: Dial, host: str, port: int) -> Route:
    """The way of every connection to one port."""
    return lambda _connection: dial(host, port)


class Forwarder:
    """Accepts in a thread of its own, and carries each connection in two more."""

    def __init__(self, listener: socket.socket, route: Route, note: Callable[[str], None]) -> None:
        self._listener = listener
        self._route = route
        self._note = note
        self._slots = threading.Semaphore(MAX_CONNECTIONS)
        self._closed = False
        self._acceptor = start("forward-accept", self._accept)

    def close(self) -> None:
        """Accept no more; what is being carried goes on until its tunnel ends."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the acceptor
        self._listener.close()
        self._slots.release()  # in case it waits there
        self._acceptor.join(5)

    def _accept(self) -> None:
        while True:
            self._slots.acquire()
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closed:
                    return
                self._slots.release()  # given up meanwhile, or no descriptor left
                time.sleep(0.05)
                continue
            try:
                start("forward", self._carry, connection)
            except RuntimeError:  # as in `relay`
                reset(connection)
                self._slots.release()

    def _carry(self, connection: socket.socket) -> None:
        try:
            stream = self._route(connection)
            if stream is not None:
                relay(connection, stream)
        except SocketpoolError as error:
            self._note(error.message)
            reset(connection)
        except OSError:
            reset(connection)  # gone while it was being routed, or no descriptor left
        except BaseException:  # a bug, which must not look like a clean end
            reset(connection)
            raise
        finally:
            self._slots.release()
