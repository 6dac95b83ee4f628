"""The HTTP protocol of the pool server, with the bounds that uvicorn leaves to a proxy.

The size of headers, the time they may take, and the number of connections are bounded before a
request is read, because nobody needs a token to open a connection.  Requests for the fast path are
taken out here if they arrive in one go; all others become requests of the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from socketpool.server.api.auth import MAX_BODY_BYTES, shown_token
from socketpool.server.http.fastpath import FastPathReply, HotRequest, LeaseFastPath

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from socketpool.server.http.connections import Connections

MAX_HEADER_BYTES = 256 << 10
"""More than one read of a socket: a body that comes with its headers counts until they are read."""

HEADER_SECONDS = 10.0

HOT_SECONDS = 0.05
"""How long the fast path waits for a body that did not come with its headers."""


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose headers are too long or too slow, and those over the number.

    ``client_of`` tells whose a token is (None: nobody's).
    """

    def __init__(
        self,
        *args: Any,
        fast_path: LeaseFastPath,
        open_connections: Connections,
        client_of: Callable[[str], str | None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._fast_path = fast_path
        self._open = open_connections
        self._client_of = client_of
        self._is_stranger = True
        self._in_headers = True
        self._header_bytes = 0
        self._header_timer: asyncio.TimerHandle | None = None
        self._hot_body: bytes | None = None  # of a request that the fast path may take
        self._hot_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection; somebody else's may have to go for it."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._await_headers()
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._open.remove(self)
        self._stop_timer()
        self._forget_hot()
        super().connection_lost(exc)

    def is_between_requests(self) -> bool:
        """See `Droppable`."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._hot_body is None and not self._header_bytes

    def drop(self) -> None:
        """See `Droppable`."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count what comes before a request's headers are complete."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        if self._hot_body is not None and self._hot_timer is None:
            self._hot_timer = self.loop.call_later(HOT_SECONDS, self._pass_on)
        if self._in_headers and self._header_timer is None and not self.transport.is_closing():
            self._await_headers()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_headers = True
        self._unset_keepalive_if_required()  # armed by an answer given since the last read
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The rest is bounded by the application."""
        self._in_headers = False
        self._header_bytes = 0
        self._stop_timer()
        if self._is_stranger and self._client_of(shown_token(self.headers)) is not None:
            self._is_stranger = False
            self._open.admit(self)
        if self._may_be_hot():
            self._hot_body = b""
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._hot_body is None:
            super().on_body(body)
            return
        self._hot_body += body
        if len(self._hot_body) > MAX_BODY_BYTES:
            self._pass_on()

    def on_message_complete(self) -> None:
        """The request is here."""
        if self._hot_body is not None:
            before, reply = self.cycle, FastPathReply(self)
            # Where uvicorn looks whether a request is being answered, and who is to hear of its end
            self.cycle = cast("RequestResponseCycle", reply)
            method = self.parser.get_method()
            body = self._hot_body
            request = HotRequest(method, self.url, self.headers, body, self.server)
            if self._fast_path.take(request, reply):
                self._forget_hot()
                return
            self.cycle = before
            self._pass_on()
        super().on_message_complete()

    def _may_be_hot(self) -> bool:
        """Whether there is nothing about the request, or before it, that the fast path can't do."""
        return (
            self._fast_path.may_take(self.url)
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not (self.parser.should_upgrade() or self.expect_100_continue)
            and not self.flow.write_paused
        )

    def _pass_on(self) -> None:
        """Let the application have the request after all."""
        body = self._hot_body
        self._forget_hot()
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _forget_hot(self) -> None:
        self._hot_body = None
        if self._hot_timer is not None:
            self._hot_timer.cancel()
            self._hot_timer = None

    def _await_headers(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
