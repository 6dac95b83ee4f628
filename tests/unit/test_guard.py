"""What stands before the API, at the level of ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from socketpool.errors import NoCapacity
from socketpool.server.api import auth
from socketpool.server.api.auth import MAX_BODY_BYTES, Guard, problem

TOKEN = "the-token"
AUTHORISED = [(b"authorization", b"Bearer the-token")]


class Application:
    """Notes what reaches it, and answers with it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            self.bodies.append(scope["type"].encode())
            return
        message = await receive()
        self.bodies.append(message["body"])
        assert message["more_body"] is False
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})


def ask(
    path: str = "/v1/leases",
    headers: Any = (),
    chunks: tuple[bytes, ...] = (b"",),
    *,
    hang: bool = False,
) -> tuple[int, dict[bytes, bytes], dict[str, Any], Application]:
    """One request; returns status, headers, problem and what the application saw."""
    application = Application()
    sent: list[dict[str, Any]] = []

    async def scenario() -> None:
        messages = [
            {"type": "http.request", "body": c, "more_body": hang or i < len(chunks) - 1}
            for i, c in enumerate(chunks)
        ]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop(0)
            if hang:
                await asyncio.sleep(1000)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "path": path, "headers": list(headers)}
        await Guard(application, {TOKEN: "acme"}.get)(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(scenario())
    body = sent[1]["body"]
    details = json.loads(body) if body.startswith(b"{") else {}
    return sent[0]["status"], dict(sent[0]["headers"]), details, application


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer the-token ")],
        [(b"authorization", b"Bearer the-toke")],
        [(b"authorization", b"bearer the-token")],
        [(b"authorization", b"Basic the-token")],
        [(b"authorization", b"the-token")],
        [(b"authorization", b"\xff\xfe")],
        [*AUTHORISED, (b"authorization", b"Bearer wrong")],
        [*AUTHORISED, *AUTHORISED],
        [(b"x-authorization", b"Bearer the-token")],
    ],
)
def test_without_the_token_nothing_reaches_the_application(headers: Any) -> None:
    status, answer, details, application = ask(headers=headers, chunks=(b"body",))
    assert status == 401
    assert application.bodies == []
    assert answer[b"www-authenticate"].startswith(b"Bearer")
    assert answer[b"content-type"] == b"application/problem+json"
    assert details["code"] == "not-authorised"
    assert TOKEN not in json.dumps(details)


def test_with_the_token_the_whole_body_arrives_in_one_piece() -> None:
    status, _, _, application = ask(headers=AUTHORISED, chunks=(b"a", b"", b"b", b"c"))
    assert status == 200
    assert application.bodies == [b"abc"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json"])
def test_health_and_documentation_are_open(path: str) -> None:
    assert ask(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/livez/", "/livez/../v1/leases", "/v1/instances", "/LIVEZ", "/readyz\n", "//docs"],
)
def test_everything_else_is_not(path: str) -> None:
    assert ask(path)[0] == 401


def test_a_body_of_the_allowed_size_passes() -> None:
    status, _, _, application = ask(headers=AUTHORISED, chunks=(b"x" * MAX_BODY_BYTES,))
    assert status == 200
    assert len(application.bodies[0]) == MAX_BODY_BYTES


@pytest.mark.parametrize("hang", [False, True], ids=["whole", "endless"])
@pytest.mark.parametrize("path", ["/v1/leases", "/livez"])
def test_a_larger_body_is_refused_as_soon_as_that_is_clear(path: str, hang: bool) -> None:
    chunks = (b"x" * MAX_BODY_BYTES, b"x")
    status, answer, details, application = ask(path, AUTHORISED, chunks, hang=hang)
    assert status == 413
    assert application.bodies == []
    assert answer[b"connection"] == b"close"
    assert details["code"] == "too-large"
    assert str(MAX_BODY_BYTES) in details["detail"]


def test_a_body_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "BODY_SECONDS", 0.05)
    status, _, details, application = ask(headers=AUTHORISED, chunks=(b"{",), hang=True)
    assert status == 408
    assert details["code"] == "timed-out"
    assert application.bodies == []


def test_what_is_not_http_passes() -> None:
    application = Application()
    asyncio.run(Guard(application, TOKEN)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert application.bodies == [b"lifespan"]


def test_problem_details_say_what_who_and_what_next() -> None:
    assert json.loads(problem(503, NoCapacity("all taken", hint="wait"))) == {
        "type": "urn:socketpool:problem:no-capacity",
        "title": "no capacity",
        "status": 503,
        "detail": "all taken",
        "code": "no-capacity",
        "hint": "wait",
        "reference": "",
    }
