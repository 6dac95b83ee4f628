"""More clients than there are instances, places in the queue, or descriptors; all of it heals."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

from socketpool.protocol.blocks import send_line_block
from socketpool.protocol.session import await_event
from socketpool.server.leases.queue import MAX_WAITING
from tests.support.invariants import assert_all_free, assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, kill, place, session
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

SLOTS = 10
SPARE = 8
"""Descriptors that a server gets for connections: fewer than it would refuse to take."""

CLIENTS = MAX_WAITING + 100

SOLE = """
import os
from pathlib import Path
from socketpool.errors import ServiceFailed
from socketpool.rsi import ServiceServer

class Sole(ServiceServer):
    def transfer(self):
        mark = Path(os.environ["MARKS"]) / str(self.workspace.port)
        try:
            fd = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            raise ServiceFailed(f"{mark.read_text()} is here too") from None
        try:
            os.write(fd, self.workspace.root.name.encode())
            self.read_line_block()
        finally:
            os.close(fd)
            mark.unlink()
"""
"""An instance that bears one holder at a time: it fails when another is in it already."""


class Reply(NamedTuple):
    """An answer of the API."""

    status: int
    headers: dict[str, str]
    body: Any


async def request(pool: RunningPool, method: str, path: str, body: Any = None) -> Reply:
    """One request on a connection of its own."""
    data = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(pool.host, pool.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer {pool.token}\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    raw = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    top, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
    return Reply(int(first.split()[1]), headers, json.loads(rest) if rest else None)


class Crowd:
    """All the clients, and what they saw."""

    def __init__(self, pool: RunningPool) -> None:
        self.pool = pool
        self.holders: dict[int, str] = {}
        self.refusals: list[Reply] = []
        self.histories: list[dict[str, Any]] = []
        self.thinned = asyncio.Event()
        """The queue has room again."""

    async def ask(self) -> Reply:
        ask = {"services": ["sole"], "wait": 300, "ttl": 300}
        return await request(self.pool, "POST", "/v1/leases", ask)

    async def client(self) -> None:
        """Be served, if need be at the second attempt."""
        reply = await self.ask()
        if reply.status != 201:
            self.refusals.append(reply)
            await self.thinned.wait()
            reply = await self.ask()
        assert reply.status == 201, reply
        await self.hold(reply.body)

    async def hold(self, lease: dict[str, Any]) -> None:
        """Use the instance, then give it back."""
        path, port = f"/v1/leases/{lease['lease']}", place(lease, "sole")["port"]
        assert port not in self.holders
        self.holders[port] = lease["lease"]
        await asyncio.to_thread(use, lease)
        self.histories.append((await request(self.pool, "GET", f"{path}/story")).body)
        assert self.holders.pop(port) == lease["lease"]
        assert (await request(self.pool, "DELETE", path)).status == 204
        if len(self.histories) >= CLIENTS // 2:
            self.thinned.set()


def use(lease: dict[str, Any]) -> None:
    with session(lease, "sole") as stream:
        send_line_block(stream, "used")
        await_event(stream, "done")


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[RunningPool]:
    sole = PROBE | {
        "sdk": {"file": "sole.py", "class": "Sole"},
        "code": SOLE,
        "warm": SLOTS,
        "max": SLOTS,
        "environment": {"MARKS": str(tmp_path)},
    }
    with PoolMaker() as maker:
        yield maker.start({"sole": sole, "probe": PROBE | {"warm": 1, "max": 1}})


def test_a_thousand_clients_for_ten_instances_are_all_served_in_turn_and_one_at_a_time(
    pool: RunningPool,
) -> None:
    async def crowd() -> Crowd:
        crowd = Crowd(pool)
        first = [(await crowd.ask()).body for _ in range(SLOTS)]
        clients = [asyncio.create_task(crowd.client()) for _ in range(CLIENTS)]
        async with asyncio.timeout(240):
            while len(crowd.refusals) < CLIENTS - MAX_WAITING:
                await asyncio.sleep(0.05)
            ask = {"services": ["probe"], "wait": 0}
            other = await request(pool, "POST", "/v1/leases", ask)
            assert other.status == 201, "what nobody waits for is granted all the same"
            await request(pool, "DELETE", f"/v1/leases/{other.body['lease']}")
            await asyncio.gather(*map(crowd.hold, first), *clients)
        return crowd

    seen = asyncio.run(crowd())
    assert len(seen.refusals) == CLIENTS - MAX_WAITING
    for refusal in seen.refusals:
        assert (refusal.status, refusal.body["code"]) == (503, "no-capacity")
        assert f"{MAX_WAITING} requests are waiting" in refusal.body["detail"]
        assert int(refusal.headers["retry-after"]) > 0
    in_turn = sorted(seen.histories, key=lambda history: history["asked"])
    generations = [history["generation"] for history in in_turn]
    assert len(set(generations)) == SLOTS + CLIENTS
    assert generations == sorted(generations), "nobody was overtaken"
    per_instance = Counter(history["instances"][0] for history in seen.histories)
    assert len(per_instance) == SLOTS

    leases = [pool.lease("sole", wait=0) for _ in range(SLOTS)]
    assert len(assert_consistent(pool)) == SLOTS
    for lease in leases:
        pool.release(lease)
    assert_all_free(pool)


OFTEN = {"interval": "0.2s", "timeout": "5s"}
"""So that an instance could be found wanting, twice, while the server can't see anything."""


def test_a_server_without_descriptors_works_on_and_blames_no_instance_for_it(
    new_pool: PoolMaker,
) -> None:
    web = WEB | {"warm": 1, "max": 1, "readiness": OFTEN | {"kind": "http", "path": "/"}}
    pool = new_pool.start({"probe": PROBE | {"warm": 3, "max": 3, "readiness": OFTEN}, "web": web})
    server = psutil.Process(pool.server_pid())
    kept = http.client.HTTPConnection(pool.host, pool.port, timeout=60)
    headers = {"Authorization": f"Bearer {pool.token}"}

    def ask(method: str, path: str, body: Any = None) -> Any:
        kept.request(method, path, None if body is None else json.dumps(body), headers)
        response = kept.getresponse()
        raw = response.read()
        assert response.status < 300, raw
        return json.loads(raw or b"null")

    lease = ask("POST", "/v1/leases", {"services": ["probe"]})
    before = {i["port"]: i["pid"] for i in ask("GET", "/v1/instances")}
    victim = next(i for i in ask("GET", "/v1/instances") if i["state"] == "idle")
    limits = server.rlimit(psutil.RLIMIT_NOFILE)
    server.rlimit(psutil.RLIMIT_NOFILE, (server.num_fds() + SPARE, limits[1]))
    with contextlib.closing(kept), contextlib.ExitStack() as crowd:
        for _ in range(100):
            stream = socket.create_connection((pool.host, pool.port), 10)
            crowd.callback(stream.close)
        eventually(lambda: "Too many open files" in pool.log("pool-server"), "the last descriptor")
        kill(victim["pid"])
        until = time.monotonic() + 3
        while time.monotonic() < until:
            other = ask("POST", "/v1/leases", {"services": ["probe"], "wait": 30})
            ask("POST", f"/v1/leases/{lease['lease']}/renew")
            assert ask_probe(other, "echo", text="x") == "x"
            ask("DELETE", f"/v1/leases/{other['lease']}")
        ask("DELETE", f"/v1/leases/{lease['lease']}")
    server.rlimit(psutil.RLIMIT_NOFILE, limits)
    pool.await_server()
    assert pool.server_pid() == server.pid
    assert "Exception in callback" not in pool.log("pool-server")
    assert_all_free(pool)
    after = {i["port"]: i["pid"] for i in pool.instances()}
    assert {p for p in before if before[p] != after[p]} == {victim["port"]}
    with pool.leased("web", "probe", "probe", "probe", wait=30) as all_of_them:
        assert ask_probe(all_of_them, "echo", text="x") == "x"
