"""Routes of the API for which FastAPI's own handling of requests takes longer than their work.

They are declared and described like all others; only what happens at a request differs: one model
is read from the body, one is written, and nothing else is looked for.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


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
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
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
