"""A proxy that leads to the pool's ports and nowhere else: SOCKS 5, 4 and 4a, and HTTP CONNECT."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol

from socketpool.errors import NotAuthorised, SocketpoolError
from socketpool.tunnel.failures import TargetRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.channel import TunnelStream
    from socketpool.tunnel.forward import Dial

VERSION = 5
HANDSHAKE_SECONDS = 10.0
MAX_HEAD = 8192
REFRESH_SECONDS = 1.0
NO_AUTHENTICATION, NO_METHOD = 0, 0xFF
CONNECT = 1
IPV4 = 1
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


class ProxyRoute:
    """Speaks with an accepted connection in its own protocol, and dials what it asks for."""

    def __init__(self, ports: PoolPorts, dial: Dial) -> None:
        self._ports = ports
        self._dial = dial

    def __call__(self, connection: socket.socket) -> TunnelStream | None:
        """The stream it asked for; None when that was refused, as it was told then.

        Raises OSError when the client is gone or too slow.
        """
        connection.settimeout(HANDSHAKE_SECONDS)
        version = _exactly(connection, 1)
        dialect = _DIALECTS.get(version, _Http)(connection, version)
        try:
            host, port = dialect.request()
        except _Refused as refusal:
            _refuse(connection, dialect, refusal.result)
            return None
        if not self._ports.allow(host, port):
            _refuse(connection, dialect, Result.NOT_ALLOWED)
            return None
        try:
            stream = self._dial(LOOPBACK if host.lower() == "localhost" else host, port)
        except SocketpoolError as error:
            result = Result.REFUSED if isinstance(error, TargetRefused) else Result.FAILED
            if isinstance(error, NotAuthorised):
                result = Result.NOT_ALLOWED
            _refuse(connection, dialect, result)
            return None
        connection.sendall(dialect.answer(Result.GRANTED))
        return stream


class Result(Enum):
    """What becomes of a request."""

    GRANTED = "granted"
    FAILED = "failed"
    NOT_ALLOWED = "not allowed"
    REFUSED = "refused"
    NO_COMMAND = "no such command"
    NO_ADDRESS = "no such address"
    MALFORMED = "malformed"


class _Refused(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


class _Dialect(Protocol):
    def __init__(self, connection: socket.socket, first: bytes) -> None: ...
    def request(self) -> tuple[str, int]: ...
    def answer(self, result: Result) -> bytes: ...


class _Socks5:
    """RFC 1928, without a password."""

    _CODES: ClassVar = {
        Result.GRANTED: 0,
        Result.NOT_ALLOWED: 2,
        Result.REFUSED: 5,
        Result.NO_COMMAND: 7,
        Result.NO_ADDRESS: 8,
    }

    def __init__(self, connection: socket.socket, _first: bytes) -> None:
        self._connection = connection

    def request(self) -> tuple[str, int]:
        """What it asks for."""
        connection = self._connection
        methods = _exactly(connection, _exactly(connection, 1)[0])
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
                raise _Refused(Result.NO_ADDRESS)
        (port,) = struct.unpack(">H", _exactly(connection, 2))
        if command != CONNECT:
            raise _Refused(Result.NO_COMMAND)
        return host, port

    def answer(self, result: Result) -> bytes:
        """As the protocol says it."""
        return bytes([VERSION, self._CODES.get(result, 1), 0, IPV4, 0, 0, 0, 0, 0, 0])


class _Socks4:
    """SOCKS 4 and 4a, which has names."""

    def __init__(self, connection: socket.socket, _first: bytes) -> None:
        self._connection = connection

    def request(self) -> tuple[str, int]:
        """What it asks for."""
        command, port, address = struct.unpack(">BH4s", _exactly(self._connection, 7))
        _until(self._connection, b"\0")  # a user's name, which nobody checks
        host = str(ipaddress.ip_address(address))
        if address[:3] == bytes(3) and address[3]:
            host = _until(self._connection, b"\0")[:-1].decode("ascii", "replace")
        if command != CONNECT:
            raise _Refused(Result.NO_COMMAND)
        return host, port

    def answer(self, result: Result) -> bytes:
        """As the protocol says it."""
        return bytes([0, 90 if result is Result.GRANTED else 91]) + bytes(6)


class _Http:
    """CONNECT of HTTP/1.1 (RFC 9110, section 9.3.6)."""

    _LINES: ClassVar = {
        Result.GRANTED: "200 Connection established",
        Result.NOT_ALLOWED: "403 Forbidden",
        Result.REFUSED: "502 Bad Gateway",
        Result.FAILED: "504 Gateway Timeout",
        Result.NO_COMMAND: "405 Method Not Allowed\r\nAllow: CONNECT",
        Result.MALFORMED: "400 Bad Request",
    }

    def __init__(self, connection: socket.socket, first: bytes) -> None:
        self._connection = connection
        self._first = first

    def request(self) -> tuple[str, int]:
        """What it asks for."""
        if not self._first.isalpha():
            raise OSError("neither SOCKS nor HTTP")
        head = self._first + _until(self._connection, b"\r\n\r\n")
        words = head.split(b"\r\n")[0].decode("ascii", "replace").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Refused(Result.MALFORMED)
        if words[0] != "CONNECT":
            raise _Refused(Result.NO_COMMAND)
        host, _, port = words[1].rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or len(port) > 5:
            raise _Refused(Result.MALFORMED)
        return host.removeprefix("[").removesuffix("]"), int(port)

    def answer(self, result: Result) -> bytes:
        """As the protocol says it."""
        end = "\r\n\r\n" if result is Result.GRANTED else "\r\nContent-Length: 0\r\n\r\n"
        return f"HTTP/1.1 {self._LINES[result]}{end}".encode()


_DIALECTS: dict[bytes, type[_Dialect]] = {b"\5": _Socks5, b"\4": _Socks4}


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the client left")
        data += more
    return data


def _until(connection: socket.socket, end: bytes) -> bytes:
    """Bytes up to an end, and none after it."""
    data = b""
    while not data.endswith(end):
        if len(data) > MAX_HEAD:
            raise OSError("a request without end")
        data += _exactly(connection, 1)
    return data


def _refuse(connection: socket.socket, dialect: _Dialect, result: Result) -> None:
    with connection:
        connection.sendall(dialect.answer(result))
        connection.shutdown(socket.SHUT_WR)
