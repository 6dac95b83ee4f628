"""Every error that crosses the API or a session arrives as the very class that was raised."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import uvicorn

from socketpool.client.api import PoolClient
from socketpool.core.permissions import OPERATOR
from socketpool.errorregistry import API_ERRORS, SESSION_ERRORS, ErrorRegistry, with_tables
from socketpool.errors import (
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
    QuotaExceeded,
    ServiceFailed,
    SocketpoolError,
    TooLarge,
    UsageError,
)
from socketpool.protocol.session import await_event, send_error
from socketpool.server.api.app import make_app
from socketpool.server.api.auth import MAX_BODY_BYTES
from socketpool.server.http.connections import Connections
from socketpool.server.http.fastpath import LeaseFastPath
from socketpool.server.http.protocol import BoundedHttp
from socketpool.server.leases.requests import ClientGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TOKEN = "the-token"
DOCS = Path(__file__).parents[2] / "docs"


class RefusingLeases:
    """Answers whatever is asked with the error it is told to."""

    def __init__(self) -> None:
        self.error: Exception = SocketpoolError("nothing was set")

    def renew(self, *_: object) -> NoReturn:
        raise self.error

    live = get = release = renew

    def submit(self, _: object, answered: Any) -> None:
        answered(self.error)

    def abandon(self, _: object) -> None:
        pass


class Api:
    """The real application and its fast path on a loopback port, over leases that refuse."""

    def __init__(self) -> None:
        self.leases = RefusingLeases()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        manager: Any = SimpleNamespace(
            leases=self.leases,
            instances=SimpleNamespace(drains=None),
            settings=SimpleNamespace(
                lease=SimpleNamespace(ttl=60),
                listen=SimpleNamespace(host="127.0.0.1"),
                services_host="127.0.0.1",
            ),
            client_of=lambda token: OPERATOR if token == TOKEN else None,
            running=self.running,
        )
        self.server = uvicorn.Server(
            uvicorn.Config(
                make_app(manager),
                http=partial(  # type: ignore[arg-type]
                    BoundedHttp,
                    fast_path=LeaseFastPath(manager),
                    open_connections=Connections(),
                    client_of=manager.client_of,
                ),
                ws="none",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    def serve(self) -> None:
        asyncio.run(self.server._serve([self.listener]))  # without taking over the signals


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    made = Api()
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def client(api: Api) -> Iterator[PoolClient]:
    made = PoolClient("127.0.0.1", api.port, TOKEN)
    yield made
    made.close()


@pytest.mark.parametrize("cls", API_ERRORS.classes, ids=lambda cls: cls.code)
@pytest.mark.parametrize("call", ["acquire", "release", "renew", "leases"])
def test_an_error_of_the_api_arrives_as_its_class(
    api: Api, client: PoolClient, cls: type[SocketpoolError], call: str
) -> None:
    api.leases.error = cls("it can't be", hint="do this")
    calls: dict[str, Callable[[], object]] = {
        "acquire": partial(client.acquire, ["web"], wait=0),  # the fast path answers
        "release": partial(client.release, "abc"),  # the fast path too
        "renew": partial(client.renew, "abc"),
        "leases": client.leases,
    }
    with pytest.raises(SocketpoolError) as caught:
        calls[call]()
    assert type(caught.value) is cls
    assert (caught.value.message, caught.value.hint) == ("it can't be", "do this")
    assert caught.value.exit_code == cls.exit_code


@pytest.mark.parametrize("cls", API_ERRORS.classes, ids=lambda cls: cls.code)
def test_the_answer_has_the_status_of_the_class(
    api: Api, client: PoolClient, cls: type[SocketpoolError]
) -> None:
    api.leases.error = cls("no")
    reply = client._exchanges.send("GET", "/v1/leases", None, client._headers, wait=1)
    assert reply.status == cls.status
    assert json.loads(reply.data)["code"] == cls.code
    assert (reply.retry_after is not None) == (cls.status in {429, 503})


def test_a_refusal_bears_its_reference_and_says_how_to_ask_for_more(
    api: Api, client: PoolClient
) -> None:
    error = QuotaExceeded("enough", hint="release one")
    error.reference = "r1"
    api.leases.error = error
    with pytest.raises(QuotaExceeded) as caught:
        client.acquire(["web"], wait=0)
    assert caught.value.reference == "r1"
    assert caught.value.hint.startswith("release one")
    assert "socketpool explain r1" in caught.value.hint


def test_what_the_guard_refuses_arrives_as_its_class(api: Api, client: PoolClient) -> None:
    stranger = PoolClient("127.0.0.1", api.port, "wrong")
    with pytest.raises(NotAuthorised, match="token is missing or wrong") as caught:
        stranger.leases()
    stranger.close()
    assert type(caught.value) is NotAuthorised
    with pytest.raises(TooLarge) as too_large:
        client._request("POST", "/v1/leases", {"services": ["w" * MAX_BODY_BYTES]})
    assert too_large.value.exit_code == UsageError.exit_code
    with pytest.raises(UsageError, match="services"):
        client._request("POST", "/v1/leases", {"services": []})
    with pytest.raises(UsageError):
        client._request("GET", "/v1/nothing")


@pytest.mark.parametrize(
    ("raised", "arrives_as"),
    [
        (PoolUnreachable("x"), SocketpoolError),  # nothing that the API reports
        (ClientGone("x"), SocketpoolError),
        (type("Mine", (QuotaExceeded,), {"code": "mine"})("x"), QuotaExceeded),
    ],
)
def test_a_class_that_is_not_registered_arrives_as_its_nearest_ancestor(
    api: Api,
    client: PoolClient,
    raised: SocketpoolError,
    arrives_as: type[SocketpoolError],
) -> None:
    api.leases.error = raised
    with pytest.raises(SocketpoolError) as caught:
        client.renew("abc")
    assert type(caught.value) is arrives_as


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (401, NotAuthorised),
        (403, NotAuthorised),
        (409, UsageError),
        (429, NoCapacity),
        (503, NoCapacity),
        (500, SocketpoolError),
    ],
)
@pytest.mark.parametrize("code", ["of-a-newer-server", "ssh-unreachable", 5, None, ["no-capacity"]])
def test_an_unknown_code_arrives_as_the_family_of_its_status(
    status: int, family: type[SocketpoolError], code: object
) -> None:
    answer = json.dumps({"code": code, "detail": "no", "hint": "h"}).encode()
    served = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = served.accept()
        with connection:
            connection.recv(1 << 16)
            head = f"HTTP/1.1 {status} x\r\ncontent-length: {len(answer)}\r\n\r\n"
            connection.sendall(head.encode() + answer)

    thread = threading.Thread(target=serve)
    thread.start()
    client = PoolClient("127.0.0.1", served.getsockname()[1], TOKEN)
    with served, pytest.raises(SocketpoolError) as caught:
        client.leases()
    client.close()
    thread.join(10)
    assert type(caught.value) is family
    assert (caught.value.message, caught.value.hint) == ("no", "h")


@pytest.mark.parametrize("cls", SESSION_ERRORS.classes, ids=lambda cls: cls.code)
def test_an_error_of_a_session_arrives_as_its_class(cls: type[SocketpoolError]) -> None:
    client, service = socket.socketpair()
    with client, service:
        send_error(service, cls("it can't be", hint="do this"))
        with pytest.raises(SocketpoolError) as caught:
            await_event(client, "done")
    assert type(caught.value) is cls
    assert (caught.value.message, caught.value.hint) == ("it can't be", "do this")


def test_a_code_stands_for_one_class() -> None:
    with pytest.raises(ValueError, match="same code"):
        ErrorRegistry(NoCapacity, type("Other", (NoCapacity,), {}), fallback=ServiceFailed)


def test_the_tables_of_the_documents_are_those_of_the_registry(tmp_path: Path) -> None:
    for name, marker in (("api.md", "api-errors"), ("protocol.md", "session-errors")):
        text = (DOCS / name).read_text()
        assert f"<!-- begin {marker} -->\n| code |" in text
        assert with_tables(text) == text, "python -m socketpool.errorregistry docs/*.md writes them"
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- begin api-errors -->\nold\n<!-- end api-errors -->\nb\n")
    subprocess.run(
        [sys.executable, "-m", "socketpool.errorregistry", str(page)], check=True, timeout=60
    )
    written = page.read_text()
    assert "old" not in written
    assert "| `quota-exceeded` | 429 | `QuotaExceeded` | 4 |" in written
    assert (written[:2], written[-3:]) == ("a\n", "\nb\n")
