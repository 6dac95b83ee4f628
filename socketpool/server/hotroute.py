"""Routes of the API for which FastAPI's own handling of requests takes longer than their work.

They are declared and described like all others; only what happens at a request differs: it passes
by the middleware, one model is read from the body, one is written, and nothing else is looked for.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi import FastAPI
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    OnError = Callable[[Request, Exception], Awaitable[Response]]


class HotRoute(APIRoute):
    """A route whose endpoint takes path parameters, a model from the body, or the request.

    The endpoint returns a model, or None for an answer without a body; the request's body has
    already been read whole (by `Guard`).
    """

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._body: tuple[str, type[BaseModel]] | None = None
        self._request = ""
        for name, parameter in inspect.signature(endpoint, eval_str=True).parameters.items():
            kind = parameter.annotation
            if kind is Request:
                self._request = name
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                self._body = name, kind
        self.app = self.serve

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application; ``path_params`` are in its scope."""
        arguments: dict[str, Any] = dict(scope["path_params"])
        message = await receive()
        if self._request:
            arguments[self._request] = Request(scope, receive)
        if self._body is not None:
            name, model = self._body
            try:
                arguments[name] = model.model_validate_json(message.get("body", b""))
            except ValidationError as error:
                raise RequestValidationError(error.errors(include_url=False)) from None
        answer = await self.endpoint(**arguments)
        body = b"" if answer is None else answer.model_dump_json().encode()
        headers = [] if answer is None else [(b"content-type", b"application/json")]
        if answer is not None:
            headers.append((b"content-length", b"%d" % len(body)))
        status = self.status_code or 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class HotLane:
    """ASGI middleware that serves the hot routes of an application itself.

    ``on_error`` holds what the application does with exceptions.
    """

    def __init__(self, app: FastAPI, on_error: Mapping[type[Exception], OnError]) -> None:
        self._app = app
        self._routes = [route for route in app.router.routes if isinstance(route, HotRoute)]
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it here, or pass it on."""
        if scope["type"] == "http":
            for route in self._routes:
                if scope["method"] in (route.methods or ()):
                    found = route.path_regex.match(scope["path"])
                    if found is not None:
                        scope["path_params"] = found.groupdict()
                        await self._serve(route, scope, receive, send)
                        return
        await self._app(scope, receive, send)

    async def _serve(self, route: HotRoute, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await route.serve(scope, receive, send)
        except tuple(self._on_error) as error:
            handle = next(h for cls, h in self._on_error.items() if isinstance(error, cls))
            response = await handle(Request(scope), error)
            await response(scope, receive, send)
