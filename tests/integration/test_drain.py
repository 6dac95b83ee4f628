"""Draining: no new leases, those that live go on, and then what was drained stops."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.invariants import assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, kill, place, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from tests.support.pools import RunningPool


@pytest.fixture(scope="module")
def _pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(
            {"probe": PROBE | {"warm": 2, "max": 2}, "web": WEB | {"warm": 1, "max": 2}}
        )


@pytest.fixture
def pool(_pool: RunningPool) -> Iterator[RunningPool]:
    """A pool of which nothing is drained or leased, before and after."""
    yield _pool
    assert_consistent(_pool)
    for lease in _pool.request("GET", "/v1/leases").body:
        _pool.release(lease)
    drain(_pool, "--all", "--undo")
    eventually(lambda: {i["state"] for i in _pool.instances()} == {"idle"}, "calm")


def drain(pool: RunningPool, *arguments: str) -> CompletedProcess[str]:
    return run_tool("socketpool", "drain", *arguments, "--state-dir", pool.state)


def states(pool: RunningPool, service: str | None = None) -> list[str]:
    return sorted(i["state"] for i in pool.instances(service))


def refused(pool: RunningPool, *services: str) -> str:
    answer = pool.request("POST", "/v1/leases", {"services": list(services), "wait": 100})
    assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    return str(answer.body["detail"])


def test_a_drained_service_grants_nothing_and_its_leases_go_on_to_their_end(
    pool: RunningPool,
) -> None:
    lease = pool.lease("probe")
    port = place(lease, "probe")["port"]
    assert drain(pool, "probe").stdout == "probe is drained, 1 instances still leased\n"
    assert "drained" in refused(pool, "probe")
    assert "drained" in refused(pool, "web", "probe")
    with pool.leased("web"):
        pass
    assert ask_probe(lease, "echo", text="x") == "x"
    assert pool.request("POST", f"/v1/leases/{lease['lease']}/renew").status == 200
    eventually(lambda: states(pool, "probe") == ["draining", "stopped"], "the other to stop")
    status = run_tool("socketpool", "status", "--state-dir", pool.state).stdout
    assert "drained: probe" in status
    assert "draining" in status

    late = drain(pool, "probe", "--wait", "0.3")
    assert late.returncode == 8
    assert "still leased" in late.stderr
    timer = threading.Timer(0.5, pool.release, [lease])
    timer.start()
    assert drain(pool, "probe", "--wait", "60").stdout == "probe is drained\n"
    timer.join()
    eventually(lambda: states(pool, "probe") == ["stopped", "stopped"], "both to stop")
    assert "STOPPED" in pool.supervisorctl("status", f"probe:{port}")

    assert drain(pool, "probe", "--undo").stdout == "probe is offered again\n"
    with pool.leased("probe", wait=30) as again:
        assert ask_probe(again, "echo", text="x") == "x"


def test_a_drain_is_taken_back_before_the_lease_has_ended(pool: RunningPool) -> None:
    lease = pool.lease("probe")
    port = place(lease, "probe")["port"]
    pid = pool.instance(port)["pid"]
    drain(pool, "probe")
    assert pool.instance(port)["state"] == "draining"
    drain(pool, "probe", "--undo")
    assert pool.instance(port)["state"] == "leased"
    pool.release(lease)
    assert pool.await_state(port, "idle")["pid"] == pid


def test_one_instance_is_drained_and_the_others_go_on(pool: RunningPool) -> None:
    first, second = pool.instances("probe")
    assert drain(pool, first["instance"]).returncode == 0
    pool.await_state(first["port"], "stopped")
    for _ in range(3):
        with pool.leased("probe") as lease:
            assert place(lease, "probe")["port"] == second["port"]
    drain(pool, first["instance"], "--undo")
    pool.await_state(first["port"], "idle")


def test_the_drained_pool_stays_so_when_the_pool_server_is_killed(pool: RunningPool) -> None:
    lease = pool.lease("probe", "web", ttl=120)
    assert drain(pool, "--all").returncode == 0
    kill(pool.server_pid())

    def back() -> bool:
        try:
            return pool.request("GET", "/readyz").status == 200
        except OSError:
            return False

    eventually(back, "the pool server")
    assert "drained" in refused(pool, "web")
    assert ask_probe(lease, "echo", text="x") == "x"
    assert_consistent(pool)
    pool.release(lease)
    assert drain(pool, "--all", "--wait", "60").returncode == 0
    eventually(lambda: set(states(pool)) == {"stopped"}, "all to stop")
    assert drain(pool, "web", "--undo").returncode == 0
    with pool.leased("web", wait=30):
        assert "drained" in refused(pool, "probe"), "the rest stays drained"


def test_who_waits_for_a_service_that_is_drained_is_told_at_once(pool: RunningPool) -> None:
    leases = [pool.lease("probe"), pool.lease("probe")]
    told: list[str] = []
    waiting = threading.Thread(target=lambda: told.append(refused(pool, "probe")))
    waiting.start()
    time.sleep(0.3)
    begun = time.monotonic()
    drain(pool, "probe")
    waiting.join()
    assert "drained" in told[0]
    assert time.monotonic() - begun < 60, "long before its time to wait was over"
    assert len(leases) == 2


def test_what_is_not_there_can_t_be_drained(pool: RunningPool) -> None:
    for arguments in (["nothing"], ["probe:1"], [], ["probe", "--all"]):
        done = drain(pool, *arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("socketpool: ")
    assert set(states(pool)) == {"idle"}
