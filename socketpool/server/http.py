"""The HTTP protocol of the pool server with the bounds that uvicorn leaves to a proxy.

Headers have a size and a deadline, and connections a number, before anything of a request is
looked at: nobody needs a token to open a connection.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

MAX_HEADER_BYTES = 256 << 10
"""More than one read of a socket: a body that comes with its headers counts until they are read."""

HEADER_SECONDS = 10.0
MOST_CONNECTIONS = 4096


def most_connections() -> int:
    """How many connections there may be; the other half of the descriptors is for the work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 2)


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose headers are too long or too slow, and those over the number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_headers = True
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection if there is room for it."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > most_connections():
            self.transport.abort()
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before a request's headers are complete."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._await_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is bounded by the application."""
        self._in_headers = False
        self._header_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        self._stop_timer()
        self._in_headers = True
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
