"""Errors as answers: problem details (RFC 9457) with the status that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from socketpool.errorregistry import API_ERRORS
from socketpool.errors import SocketpoolError, UsageError
from socketpool.server.api.auth import problem

if TYPE_CHECKING:
    from fastapi import Request

RETRY_AFTER_SECONDS = 5
PROBLEM = b"application/problem+json"


def rendered(error: SocketpoolError) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body (of the type `PROBLEM`) and further headers of the answer that tells it."""
    status = API_ERRORS.class_of(error).status
    headers = [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)] if status in {429, 503} else []
    return status, problem(status, error), headers


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, SocketpoolError)  # noqa: S101 - how it is registered
    status, body, headers = rendered(error)
    response = Response(body, status, media_type=PROBLEM.decode())
    response.raw_headers.extend(headers)
    return response


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - how it is registered
    sentences = []
    for detail in error.errors()[:5]:
        where = ".".join(str(part) for part in detail["loc"] if part != "body")
        sentences.append(f"{where}: {detail['msg'].removeprefix('Value error, ')}")
    return _problem_response(UsageError.status, UsageError("; ".join(sentences)))


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - how it is registered
    response = _problem_response(error.status_code, UsageError(str(error.detail)))
    response.headers.update(error.headers or {})
    return response


ON_ERROR: Final = {
    SocketpoolError: _on_error,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http_error,
}


def _problem_response(status: int, error: SocketpoolError) -> Response:
    return Response(problem(status, error), status, media_type=PROBLEM.decode())
