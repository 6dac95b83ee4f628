"""A pool server that is killed is back in a moment; its clients notice no more than a pause."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from socketpool.client.reporter import Reporter
from socketpool.client.roundtrip import RoundTrip, RunOptions
from tests.support.pools import PoolMaker, kill, run_tool, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.client.reporter import Step
    from tests.support.pools import RunningPool

SITE = Path(__file__).parents[1] / "data" / "webflow-site.zip"
STEPS = ("upload", "vendor", "download")


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start({name: shipped(name) | {"warm": 1, "max": 2} for name in STEPS})


def kill_server(pool: RunningPool) -> None:
    """Once it counts as started: supervisord waits longer and longer for what ends before."""
    eventually(lambda: "RUNNING" in pool.supervisorctl("status", "pool-server"), "the pool server")
    kill(pool.server_pid())


def test_leases_are_granted_renewed_and_released_across_restarts(pool: RunningPool) -> None:
    client = pool.client()
    client.check_alive()
    kill_server(pool)
    lease = client.acquire(["upload"], wait=30)
    kill_server(pool)
    assert client.renew(lease.id) > 0
    kill_server(pool)
    client.release(lease.id)
    assert client.leases() == []


def test_a_request_that_waits_in_the_queue_is_put_again_after_a_restart(pool: RunningPool) -> None:
    client = pool.client()
    held = [client.acquire(["upload"], wait=30) for _ in range(2)]
    granted: list[str] = []

    def ask() -> None:
        other = pool.client()
        other.check_alive()
        granted.append(other.acquire(["upload"], wait=60).id)
        other.close()

    asking = threading.Thread(target=ask)
    asking.start()
    kill_server(pool)
    for lease in held:
        client.release(lease.id)
    asking.join(90)
    assert [entry.id for entry in client.leases()] == granted
    client.release(granted[0])


class Killer(Reporter):
    """Kills the pool server at the begin of each step."""

    def __init__(self, pool: RunningPool) -> None:
        self._pool = pool
        self.killed_at: list[str] = []

    def step(self, step: Step) -> None:
        kill_server(self._pool)
        self.killed_at.append(step.service)


def test_a_round_trip_succeeds_while_the_pool_server_is_killed_at_each_of_its_steps(
    pool: RunningPool, tmp_path: Path
) -> None:
    archive = tmp_path / "site.zip"
    shutil.copy(SITE, archive)
    client = pool.client()
    killer = Killer(pool)
    summary = RoundTrip(client, archive, STEPS, RunOptions(wait=30), reporter=killer).run()
    assert killer.killed_at == list(STEPS)
    assert summary.changed
    assert client.leases() == []


def test_commands_wait_for_a_local_pool_server_that_is_restarting(pool: RunningPool) -> None:
    kill_server(pool)
    done = run_tool("socketpool", "leases", "--state-dir", pool.state)
    assert (done.returncode, done.stderr) == (0, "no leases\n")


def test_a_program_that_ends_while_the_server_is_away_has_its_lease_released(
    pool: RunningPool,
) -> None:
    done = run_tool(
        *("socketpool", "run", "--state-dir", pool.state, "upload", "--"),
        *("sh", "-c", f"kill -9 {pool.server_pid()}; exit 7"),
    )
    assert done.returncode == 7, done.stderr
    assert pool.client().leases() == []
