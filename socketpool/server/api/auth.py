"""What stands before the API: the token, and bounds on every request's size and time."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from socketpool import variables
from socketpool.errorregistry import API_ERRORS
from socketpool.errors import NotAuthorised, SocketpoolError, TimedOut, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 64 << 10
BODY_SECONDS = 10.0

OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
OPEN_PREFIX = "/static-offline-docs/"
"""The API's description tells nothing about a pool; health checks must work without a secret."""


CLIENT = "socketpool.client"
"""Where the scope of a request names its client."""


def problem(status: int, error: SocketpoolError) -> bytes:
    """An error as problem details."""
    code = API_ERRORS.code_of(error)
    details = {
        "type": f"urn:socketpool:problem:{code}",
        "title": code.replace("-", " "),
        "status": status,
        "detail": error.message,
        "code": code,
        "hint": error.hint,
        "reference": error.reference,
    }
    return json.dumps(details).encode()


class Guard:
    """ASGI middleware: refuse before anything of the application runs.

    ``client_of`` tells whose a token is (None: nobody's); what passes bears the name in its scope.
    """

    def __init__(self, app: ASGIApp, client_of: Callable[[str], str | None]) -> None:
        self._app = app
        self._client_of = client_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is authorised and bounded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if not (path in OPEN_PATHS or path.startswith(OPEN_PREFIX)):
            client = self._client_of(shown_token(scope["headers"]))
            if client is None:
                error = NotAuthorised(
                    "the API token is missing or wrong",
                    hint=f"name the pool's token file in {variables.TOKEN_FILE}",
                )
                await _refuse(send, error)
                return
            scope[CLIENT] = client
        try:
            body = await _read_body(receive)
        except (TooLarge, TimedOut) as error:
            await _refuse(send, error)
            return

        if body:  # it is JSON or nothing, though `curl -d` calls it a form
            others = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]
        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if not delivered:
                delivered = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, send)


def shown_token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The bearer token of a request; empty unless there is exactly one."""
    shown = [value for name, value in headers if name == b"authorization"]
    if len(shown) != 1 or not shown[0].startswith(b"Bearer "):
        return ""
    return str(shown[0].removeprefix(b"Bearer "), "latin-1")


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge(f"a request has {MAX_BODY_BYTES} bytes at most")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise TimedOut("the request did not arrive in time") from None


async def _refuse(send: Send, error: SocketpoolError) -> None:
    body = problem(error.status, error)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if isinstance(error, NotAuthorised):
        headers.append((b"www-authenticate", b'Bearer realm="socketpool"'))
    else:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
