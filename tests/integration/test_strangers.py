"""Thousands of connections that show no token keep nobody out of a real pool."""

from __future__ import annotations

import http.client
import json
import resource
import socket
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from socketpool.server.http.connections import MAX_CONNECTIONS
from tests.support.pools import PROBE, PoolMaker
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

KINDS = {
    "say nothing": b"",
    "send half a header": b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nAuthor",
    "send half a body": b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n"
    b'Content-Length: 60000\r\n\r\n{"ser',
    "ask what needs no token, and stay": b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
}
BEYOND = 100


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start({"probe": PROBE | {"warm": 1, "max": 2}})


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    """Enough for all those connections, for as long as they last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS * 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def room(pool: RunningPool) -> int:
    """How many connections the pool's server takes."""
    soft, _ = psutil.Process(pool.server_pid()).rlimit(psutil.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, soft // 2)


@contextmanager
def strangers(pool: RunningPool, count: int, said: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        made = []
        for _ in range(count):
            line = stack.enter_context(socket.create_connection((pool.host, pool.port), 30))
            if said:
                line.sendall(said)
            made.append(line)
        yield made


def is_closed(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        while line.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_keep_nobody_out(pool: RunningPool, kind: str) -> None:
    headers = {"Authorization": f"Bearer {pool.token}"}
    kept = http.client.HTTPConnection(pool.host, pool.port, timeout=60)

    def ask(method: str, path: str, body: Any = None) -> Any:
        kept.request(method, path, None if body is None else json.dumps(body), headers)
        response = kept.getresponse()
        raw = response.read()
        assert response.status < 300, raw
        return json.loads(raw or b"null")

    with closing(kept):
        lease = ask("POST", "/v1/leases", {"services": ["probe"], "ttl": 60})
        line = kept.sock
        with strangers(pool, room(pool) + BEYOND, KINDS[kind]) as made:
            eventually(lambda: is_closed(made[0]), "the first stranger to be sent away")
            assert ask("POST", f"/v1/leases/{lease['lease']}/renew")["expires_in"] > 0
            assert kept.sock is line, "who has shown a token keeps its connection"
            client = pool.client()
            other = client.acquire(["probe"], wait=60)
            assert client.renew(other.id) > 0
            client.release(other.id)
            assert not is_closed(made[-1]), "who came last stays"
        ask("DELETE", f"/v1/leases/{lease['lease']}")
        assert kept.sock is line
