"""Many clients on kept connections from one process: what the server can do, not the generator.

Each connection sends one request after the other; requests are ready-made bytes and answers are
only searched for what the next request needs, so that on two cores the server has one for itself.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Generator

Script = Generator[bytes, bytes, None]
"""What one client says: yields a request, is sent the answer to it, and ends after a round."""

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def _nothing() -> Script:
    yield b""


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.started = 0.0
        self.script: Script = _nothing()

    def answer(self) -> bytes | None:
        """The whole answer, once it is here."""
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("the server closed a connection")
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(self.received, 0, end)
        if length is not None and len(self.received) < end + 4 + int(length[1]):
            return None
        answer, self.received = self.received, b""
        return answer


def run(port: int, clients: int, seconds: float, script: Callable[[], Script]) -> list[float]:
    """Let so many clients repeat the script for so long; returns the seconds of each round."""
    connections = {}
    poll = select.epoll()
    for _ in range(clients):
        connection = _Connection(port)
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    working = clients

    def begin(connection: _Connection) -> None:
        connection.script = script()
        connection.started = time.perf_counter()
        connection.socket.sendall(next(connection.script))

    for connection in connections.values():
        begin(connection)
    while working:
        for fd, _ in poll.poll():
            connection = connections[fd]
            answer = connection.answer()
            if answer is None:
                continue
            try:
                request = connection.script.send(answer)
            except StopIteration:
                now = time.perf_counter()
                latencies.append(now - connection.started)
                if now < end:
                    begin(connection)
                else:
                    working -= 1
            else:
                connection.socket.sendall(request)
    for connection in connections.values():
        connection.socket.close()
    poll.close()
    return latencies
