"""Instances are started a few at a time, and no service waits for another's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.pool import Pool
from socketpool.core.ports import PortRange
from socketpool.core.records import Instance, ServicePlan
from socketpool.errors import SocketpoolError
from socketpool.server.instances.starter import Starter
from socketpool.supervision.rpc import Supervisor
from socketpool.supervision.rpcthread import Worker

REGISTERED = InstanceState.REGISTERED


class Started(Supervisor):
    """In place of a supervisord whose every moment would have to be known."""

    def __init__(self, pool: Pool, refuses: str = "") -> None:
        super().__init__(Path("/nowhere"))
        self.pool = pool
        self.refuses = refuses
        self.order: list[str] = []
        self.most_at_a_time = 0

    def start(self, name: str) -> None:
        if name == self.refuses:
            self.refuses = ""
            raise SocketpoolError("not this time")
        self.order.append(name)
        starting = [i for i in self.pool.instances.values() if i.state is InstanceState.STARTING]
        self.most_at_a_time = max(self.most_at_a_time, len(starting) + 1)


def house(**registered: int) -> Pool:
    plans = [ServicePlan(name, 1, 99, restart=False) for name in registered]
    pool = Pool(plans, PortRange(2000, 2200), max_age=1, new_id=lambda: "1")
    ports = iter(pool.ports)
    for name, count in registered.items():
        for _ in range(count):
            pool.add(Instance(name, next(ports), name, REGISTERED))
    return pool


def run(pool: Pool, supervisor: Started, *, ready: bool) -> None:
    async def body() -> None:
        worker = Worker()

        def become_ready() -> None:
            for port, instance in list(pool.instances.items()):
                if ready and instance.state is InstanceState.STARTING:
                    pool.apply(port, InstanceEvent.READY, 0)

        starter = Starter(pool, supervisor, worker, wake=become_ready)
        task = asyncio.create_task(starter.run())
        async with asyncio.timeout(30):
            while any(i.state is REGISTERED for i in pool.instances.values()):
                starter.wake()
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        worker.close()

    asyncio.run(body())


def test_a_small_service_does_not_wait_for_a_large_one() -> None:
    pool = house(large=40, small=2)
    supervisor = Started(pool)
    run(pool, supervisor, ready=True)
    assert len(supervisor.order) == 42
    assert max(supervisor.order.index(f"small:{port}") for port in (2040, 2041)) < 5
    assert supervisor.most_at_a_time == 1


def test_what_takes_long_to_start_does_not_hold_up_the_rest_for_ever() -> None:
    pool = house(slow=20)
    supervisor = Started(pool)
    run(pool, supervisor, ready=False)
    assert len(supervisor.order) == 20


def test_a_start_that_is_refused_is_tried_again_after_the_others() -> None:
    pool = house(one=3)
    supervisor = Started(pool, refuses="one:2000")
    run(pool, supervisor, ready=True)
    assert supervisor.order == ["one:2001", "one:2002", "one:2000"]
