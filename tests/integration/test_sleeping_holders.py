"""Holders that sleep, clients that never hear the answer: who comes too late changes nothing."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from socketpool.errors import NotAuthorised, SocketpoolError
from socketpool.protocol.blocks import read_line_block, send_line_block
from socketpool.protocol.session import await_event
from tests.support.invariants import assert_all_free, assert_consistent
from tests.support.pools import PROBE, PoolMaker, ask_probe, ended, place, session
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

ONE = PROBE | {"warm": 1, "max": 1}

HOLD = """
import os
from socketpool.rsi import ServiceServer

class Hold(ServiceServer):
    def transfer(self):
        (self.workspace.root / "early.txt").write_text("early")
        self.progress(0, 1, str(os.getpid()))
        self.read_line_block()
        (self.workspace.root / "late.txt").write_text("late")

    def outcome(self):
        return {"files": sorted(path.name for path in self.workspace.root.iterdir())}
"""
"""Writes, waits for a word of its client, and writes again."""


@pytest.fixture(scope="module")
def _pool() -> Iterator[RunningPool]:
    hold = ONE | {"sdk": {"file": "hold.py", "class": "Hold"}, "code": HOLD}
    with PoolMaker() as maker:
        yield maker.start({"probe": ONE, "hold": hold})


@pytest.fixture
def pool(_pool: RunningPool) -> Iterator[RunningPool]:
    """Each test gives back what it holds, and finds that all is free."""
    yield _pool
    for lease in _pool.request("GET", "/v1/leases").body:
        _pool.release(lease)
    assert_all_free(_pool)


def ask_and_hang_up(pool: RunningPool, ask: dict[str, Any]) -> None:
    """Send the request whole, and be gone before any answer."""
    body = json.dumps(ask).encode()
    with socket.create_connection((pool.host, pool.port), 10) as gone:
        gone.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (pool.token.encode(), len(body), body)
        )


def only_lease(pool: RunningPool) -> str:
    (lease,) = eventually(lambda: pool.request("GET", "/v1/leases").body, "the lease")
    return str(lease["lease"])


# -- the answer is lost ------------------------------------------------------------------------


def test_who_asks_again_with_its_key_gets_the_lease_whose_reply_was_lost(pool: RunningPool) -> None:
    ask = {"services": ["probe"], "key": "mine"}
    ask_and_hang_up(pool, ask)
    lost = only_lease(pool)
    for _ in range(2):
        found = pool.lease("probe", key="mine", wait=0)
        assert found["lease"] == lost
    assert ask_probe(found, "echo", text="x") == "x"


def test_without_a_key_a_lease_whose_reply_was_lost_ends_by_its_time_to_live(
    pool: RunningPool,
) -> None:
    ask_and_hang_up(pool, {"services": ["probe"], "ttl": 1})
    lost = only_lease(pool)
    other = pool.lease("probe", wait=30)
    assert other["lease"] != lost
    assert list(assert_consistent(pool)) == [other["lease"]]


def test_who_lost_its_connection_in_the_queue_and_asks_again_keeps_its_key_s_place(
    pool: RunningPool,
) -> None:
    first = pool.lease("probe")
    with ThreadPoolExecutor(2) as threads:
        ask_and_hang_up(pool, {"services": ["probe"], "key": "mine", "wait": 60})
        mine = threads.submit(pool.lease, "probe", key="mine", wait=60)
        pool.release(first)
        lease = mine.result(60)
    assert list(assert_consistent(pool)) == [lease["lease"]]
    assert ask_probe(lease, "echo", text="x") == "x"


# -- the holder sleeps -------------------------------------------------------------------------


def test_a_holder_that_wakes_after_its_lease_gets_in_nowhere(pool: RunningPool) -> None:
    sleeper = pool.lease("probe", ttl=1)
    ask_probe(sleeper, "write", name="secret.txt")
    holder = pool.lease("probe", wait=30)
    assert place(holder, "probe")["port"] == place(sleeper, "probe")["port"]
    path = f"/v1/leases/{sleeper['lease']}"
    for method, at in (("POST", f"{path}/renew"), ("DELETE", path)):
        assert pool.request(method, at).status == 404
    with pytest.raises(NotAuthorised):
        ask_probe(sleeper, "write", name="late.txt")
    assert ask_probe(holder, "write", name="own.txt") == ["lock", "own.txt"]
    assert list(assert_consistent(pool)) == [holder["lease"]]


def holding(stream: socket.socket) -> int:
    """The process of a session that waits for a word of its client."""
    told: dict[str, Any] = json.loads(read_line_block(stream))
    return int(told["text"])


def finish(stream: socket.socket) -> list[str]:
    """Say the word; returns which files the session sees then."""
    send_line_block(stream, "go on")
    files: list[str] = await_event(stream, "done")["detail"]["files"]
    return files


def assert_alone(pool: RunningPool, holder: dict[str, Any]) -> None:
    """The holder finds nothing that another left in its workspace."""
    with session(holder, "hold") as stream:
        holding(stream)
        assert finish(stream) == ["early.txt", "late.txt", "lock"]
    assert list(assert_consistent(pool)) == [holder["lease"]]


def test_a_client_that_sleeps_within_a_session_is_cut_off_with_its_lease(pool: RunningPool) -> None:
    sleeper = pool.lease("hold", ttl=1)
    with session(sleeper, "hold") as stream:
        process = holding(stream)
        holder = pool.lease("hold", wait=30)
        with session(holder, "hold") as other:
            holding(other)
            with pytest.raises((SocketpoolError, OSError)):
                finish(stream)
            assert finish(other) == ["early.txt", "late.txt", "lock"]
    eventually(lambda: ended(process), "the end of the sleeper's session")
    assert_alone(pool, holder)


def test_a_session_that_sleeps_beyond_its_lease_is_ended(pool: RunningPool) -> None:
    """Its process was stopped, so that it could not notice the end itself."""
    sleeper = pool.lease("hold", ttl=1)
    with session(sleeper, "hold") as stream:
        process = psutil.Process(holding(stream))
        process.send_signal(signal.SIGSTOP)
        send_line_block(stream, "go on")
        holder = pool.lease("hold", wait=30)
        eventually(lambda: ended(process.pid), "the end of the sleeper's session")
    assert_alone(pool, holder)


def test_a_pool_server_that_slept_beyond_all_leases_ends_them_when_it_wakes(
    pool: RunningPool,
) -> None:
    """Meanwhile their holders work on: nobody else can have got their instances."""
    lease = pool.lease("probe", ttl=1)
    server = psutil.Process(pool.server_pid())
    with ThreadPoolExecutor(1) as thread:
        server.send_signal(signal.SIGSTOP)
        try:
            waiting = thread.submit(pool.lease, "probe", wait=30)
            asleep_until = time.monotonic() + 1.5 * lease["ttl"]
            while time.monotonic() < asleep_until:
                assert ask_probe(lease, "echo", text="x") == "x"
        finally:
            server.send_signal(signal.SIGCONT)
        other = waiting.result(60)
    assert pool.server_pid() == server.pid
    assert list(assert_consistent(pool)) == [other["lease"]]
    with pytest.raises(NotAuthorised):
        ask_probe(lease, "echo", text="x")
