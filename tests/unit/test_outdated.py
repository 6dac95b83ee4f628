"""Which instances are replaced when their service has changed, with real processes."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from socketpool.core.backoff import Backoff
from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.pool import Pool
from socketpool.core.ports import PortRange
from socketpool.core.records import Instance, ServicePlan
from socketpool.server.instances.act import Actor
from socketpool.server.instances.live import LiveInstances
from socketpool.server.instances.outdated import Updater
from socketpool.system.processes import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def spawn() -> Iterator[Callable[[], int]]:
    processes = []

    def start() -> int:
        processes.append(subprocess.Popen(["sleep", "60"]))
        return processes[-1].pid

    yield start
    for process in processes:
        process.kill()
        process.wait()


def house(state: InstanceState, pid: int) -> tuple[Pool, Updater]:
    pool = Pool(
        [ServicePlan("up", 1, 1, restart=True)],
        PortRange(2000, 2000),
        max_age=60,
        new_id=lambda: "x",
    )
    pool.add(Instance("up", 2000, "up", state, pid=pid))
    nothing = cast("Any", None)
    instances = LiveInstances(pool)
    actor = Actor(pool, instances, nothing, nothing, nothing, backoff=Backoff(1, 2))
    return pool, Updater(pool, instances, actor)


def state_of(pool: Pool) -> InstanceState:
    """The state of the one instance, which each call may change."""
    return pool.instances[2000].state


def test_the_start_of_a_process_is_known_and_never_told_later_than_it_was(
    spawn: Callable[[], int],
) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    pid = spawn()
    assert before - 0.02 <= started(pid) <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert started(2**22 + 1) == 0.0


def test_an_instance_whose_respawn_read_the_service_as_it_was_is_replaced_when_it_is_ready(
    spawn: Callable[[], int],
) -> None:
    """supervisord had started it when the change came; that it has is noticed only after that."""
    pool, updater = house(InstanceState.RECYCLING, 0)
    pool.apply(2000, InstanceEvent.LOST, 0.0)
    respawned = spawn()
    time.sleep(0.05)
    updater.outdate(["up"])
    pool.apply(2000, InstanceEvent.SPAWNED, 0.0)
    pool.saw(2000, respawned)
    updater.replace()
    assert state_of(pool) is InstanceState.STARTING, "it is on its way already"
    pool.apply(2000, InstanceEvent.READY, 1.0)
    updater.replace()
    assert state_of(pool) is InstanceState.RECYCLING


@pytest.mark.parametrize("state", [InstanceState.IDLE, InstanceState.LEASED])
def test_an_instance_that_started_after_the_change_is_left_alone(
    spawn: Callable[[], int], state: InstanceState
) -> None:
    pool, updater = house(state, 0)
    updater.outdate(["up"])
    time.sleep(0.05)
    pool.saw(2000, spawn())
    updater.replace()
    assert (pool.instances[2000].state, pool.instances[2000].dirty) == (state, False)


def test_an_idle_instance_of_before_the_change_is_replaced_once(spawn: Callable[[], int]) -> None:
    pool, updater = house(InstanceState.IDLE, spawn())
    time.sleep(0.05)
    updater.outdate(["up"])
    updater.replace()
    assert state_of(pool) is InstanceState.RECYCLING
    pool.apply(2000, InstanceEvent.SPAWNED, 1.0)
    time.sleep(0.05)
    pool.saw(2000, spawn())
    pool.apply(2000, InstanceEvent.READY, 2.0)
    updater.replace()
    assert state_of(pool) is InstanceState.IDLE
