"""A SOCKS5 proxy (RFC 1928) on loopback that leads to the pool's ports and nowhere else."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.errors import NotAuthorised, SocketpoolError
from socketpool.tunnel.failures import TargetRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.channel import TunnelStream
    from socketpool.tunnel.forward import Dial

VERSION = 5
HANDSHAKE_SECONDS = 10.0
REFRESH_SECONDS = 1.0
NO_AUTHENTICATION, NO_METHOD = 0, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
GRANTED, FAILED, NOT_ALLOWED, REFUSED, NO_COMMAND, NO_ADDRESS = 0, 1, 2, 5, 7, 8
LOOPBACK = "127.0.0.1"


class PoolPorts:
    """The ports that belong to a pool, asked of it again when one is not known yet."""

    def __init__(self, server: tuple[str, int], ports: Callable[[], set[int]]) -> None:
        self._host = server[0]
        self._ask = ports
        self._own: set[int] = {server[1]}
        self._known: set[int] = set()
        self._asked = -REFRESH_SECONDS
        self._lock = threading.Lock()

    def learn(self, ports: set[int]) -> None:
        """These are the pool's, whatever it says: a client may not be shown all instances."""
        self._own |= ports

    def allow(self, host: str, port: int) -> bool:
        """Whether the pool listens there; ``localhost`` is the loopback of its host."""
        host = LOOPBACK if host.lower() in {"localhost", "localhost."} else host
        if host != self._host:
            return False
        if port in self._own or port in self._known:
            return True
        with self._lock:
            if time.monotonic() - self._asked >= REFRESH_SECONDS:
                with suppress(SocketpoolError):
                    self._known = self._ask()
                self._asked = time.monotonic()
        return port in self._known


class SocksRoute:
    """Speaks SOCKS with an accepted connection, and dials what it asks for."""

    def __init__(self, ports: PoolPorts, dial: Dial) -> None:
        self._ports = ports
        self._dial = dial

    def __call__(self, connection: socket.socket) -> TunnelStream | None:
        """The stream it asked for; None when that was refused, as it was told then.

        Raises OSError when the client is gone or too slow.
        """
        connection.settimeout(HANDSHAKE_SECONDS)
        try:
            host, port = self._read_request(connection)
        except _Refused as refusal:
            _answer(connection, refusal.code)
            return None
        if not self._ports.allow(host, port):
            _answer(connection, NOT_ALLOWED)
            return None
        try:
            stream = self._dial(LOOPBACK if host.lower() == "localhost" else host, port)
        except SocketpoolError as error:
            code = REFUSED if isinstance(error, TargetRefused) else FAILED
            _answer(connection, NOT_ALLOWED if isinstance(error, NotAuthorised) else code)
            return None
        connection.sendall(_reply(GRANTED))
        return stream

    def _read_request(self, connection: socket.socket) -> tuple[str, int]:
        version, count = _exactly(connection, 2)
        methods = _exactly(connection, count)
        if version != VERSION:
            raise _Refused(FAILED)
        if NO_AUTHENTICATION not in methods:
            connection.sendall(bytes([VERSION, NO_METHOD]))
            raise OSError("no common method")
        connection.sendall(bytes([VERSION, NO_AUTHENTICATION]))
        _, command, _, kind = _exactly(connection, 4)
        match kind:
            case 1 | 4:
                size = 4 if kind == IPV4 else 16
                host = str(ipaddress.ip_address(_exactly(connection, size)))
            case 3:
                host = _exactly(connection, _exactly(connection, 1)[0]).decode("ascii", "replace")
            case _:
                raise _Refused(NO_ADDRESS)
        (port,) = struct.unpack(">H", _exactly(connection, 2))
        if command != CONNECT:
            raise _Refused(NO_COMMAND)
        return host, port


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the client left")
        data += more
    return data


def _reply(code: int) -> bytes:
    return bytes([VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0])


def _answer(connection: socket.socket, code: int) -> None:
    with connection:
        connection.sendall(_reply(code))
        connection.shutdown(socket.SHUT_WR)
