"""How the client reaches a port: a function, so that a tunnel can take the place of the network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from socketpool.client.peeraccount import check_peer, usual_accounts
from socketpool.errors import PoolUnreachable, SocketpoolError
from socketpool.protocol.frames import Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 10.0
"""How long a leased service may take until it answers at its port."""

_ANSWER_INTERVAL_SECONDS = 0.05


class Connection(Stream, Protocol):
    """What the client needs of a connection: a socket, or a stream of a tunnel."""

    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


Dial = Callable[[str, int], Connection]
"""Connects to a host and port; raises a :class:`SocketpoolError` that says why it can't."""


class Deadline:
    """Shuts a connection down when its time is over, however busily the peer keeps it alive."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self.passed = False
        self._connection = connection
        self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._pass)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """It was met."""
        self._timer.cancel()

    def _pass(self) -> None:
        self.passed = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class TcpDial:
    """Connects over TCP.  On this machine, only to a socket of the accounts that may run the pool.

    ``accounts`` are uids, besides the usual ones: root, our own, and ``socketpool``.
    """

    def __init__(self, accounts: Iterable[int] = ()) -> None:
        self._accounts = frozenset(accounts)

    def __call__(self, host: str, port: int) -> socket.socket:
        """A connection; raises :class:`PoolUnreachable` with the reason in words, and
        :class:`WrongListener` for a socket of another account, to which nothing was sent."""
        try:
            connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        except (OSError, UnicodeError) as error:
            raise unreachable(host, port, error) from None
        try:
            check_peer(connection, self._accounts | usual_accounts())
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection


dial_tcp = TcpDial()
"""Trusts the usual accounts alone."""


def await_answer(host: str, port: int, dial: Dial = dial_tcp) -> None:
    """Return when somebody answers there; raises PoolUnreachable after `ANSWER_SECONDS`."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            dial(host, port).close()
        except PoolUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ANSWER_INTERVAL_SECONDS)
        else:
            return


def unreachable(host: str, port: int, error: Exception) -> SocketpoolError:
    """What to tell the user about a failed connection."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return PoolUnreachable(
            f"{host!r} can't be resolved", hint="check the name, or give an IP address"
        )
    if isinstance(error, ConnectionRefusedError):
        return PoolUnreachable(
            f"nothing listens at {host} port {port}",
            hint="is socketpool_server running there? check the ip and port",
        )
    if isinstance(error, TimeoutError):
        return PoolUnreachable(
            f"{host} port {port} did not answer within {CONNECT_SECONDS:g} s",
            hint="check the address and any firewall on the way",
        )
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return PoolUnreachable(f"{host} port {port} can't be reached: {reason}")
