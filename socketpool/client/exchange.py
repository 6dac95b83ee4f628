"""HTTP requests to one server, bounded in time and size, over a kept connection for each thread."""

from __future__ import annotations

import http.client
import socket
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from socketpool.client.dial import Deadline
from socketpool.client.retries import parse_retry_after
from socketpool.errors import PoolUnreachable, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from socketpool.client.dial import Dial

REQUEST_SECONDS = 15.0
"""Timeout of a request for which the server waits for nothing, in seconds."""

MAX_ANSWER_BYTES = 16 << 20


class Reply(NamedTuple):
    """An answer: its status, its body, and the seconds of its Retry-After header, if any."""

    status: int
    data: bytes
    retry_after: float | None


class Exchanges:
    """Sends requests, each once.  Thread-safe."""

    def __init__(self, host: str, port: int, dial: Dial) -> None:
        self._host = host
        self._port = port
        self._dial = dial
        self._local = threading.local()
        self._open: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()
        self._aborted = False
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        headers: Mapping[str, str],
        *,
        wait: float,
    ) -> Reply:
        """One request, which the server may take ``wait`` seconds longer to answer than others.

        Raises PoolUnreachable when nobody is there or the reply is cut, and TimedOut.
        """
        timeout = wait + REQUEST_SECONDS
        try:
            connection = self._connection()
            connection.sock.settimeout(timeout)
            deadline = Deadline(connection.sock, timeout + REQUEST_SECONDS)
            try:
                connection.request(method, path, payload, dict(headers))
                response = connection.getresponse()
                data = response.read(MAX_ANSWER_BYTES + 1)
            finally:
                deadline.cancel()
        except TimeoutError:
            self.close()
            raise TimedOut(
                f"the pool server at {self._host} port {self._port} did not answer in time"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise no_pool_server(self._host, self._port, f" ({type(error).__name__})") from None
        if len(data) > MAX_ANSWER_BYTES:
            self.close()  # the rest of it must not be taken for the next answer
        return Reply(response.status, data, parse_retry_after(response.getheader("Retry-After")))

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def abort(self) -> None:
        """Cut off the requests of all threads, and refuse any more."""
        with self._lock:
            self._aborted = True
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError, AttributeError):  # it is being closed by its own thread
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _DialledConnection(self._host, self._port, self._dial)
            self._local.connection = connection
        if connection.sock is None:
            connection.connect()
        with self._lock:
            self._open.add(connection)
            if self._aborted:
                raise ConnectionAbortedError
        return connection


def no_pool_server(host: str, port: int, why: str = "") -> PoolUnreachable:
    """What to tell the user about a peer that doesn't talk as a pool server does."""
    return PoolUnreachable(
        f"{host} port {port} does not answer as a pool server{why}",
        hint="check the address; is it socketpool_server's?",
    )


class _DialledConnection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, dial: Dial) -> None:
        super().__init__(host, port)
        self._dial = dial

    def connect(self) -> None:
        # It takes whatever sends, receives and makes a file, as streams of a tunnel do.
        self.sock = cast("socket.socket", self._dial(self.host, self.port))
