"""Starts registered instances, a few at a time and in turn for all services.

supervisord answers nobody while it starts many at once, and many programs that start together take
the machine from those that serve.  A service with little running goes before one that has much, so
that nobody waits for a large warm set of another service to be there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.errors import SocketpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance
    from socketpool.supervision.rpc import Supervisor
    from socketpool.supervision.rpcthread import Worker

PATIENCE = 0.25
"""Seconds to wait for those that start already; one that takes long must not hold up the rest."""

STEP = 0.01
RETRY_SECONDS = 0.5

log = logging.getLogger("socketpool.starter")


class Starter:
    """Starts the instances of one pool.  ``look`` is called after each."""

    def __init__(
        self, pool: Pool, supervisor: Supervisor, worker: Worker, *, look: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._worker = worker
        self._look = look
        self._wake = asyncio.Event()
        self._failed: dict[int, float] = {}  # port -> when its start was refused
        self._most_starting = 2 * (os.cpu_count() or 1)

    def wake(self) -> None:
        """There is something to be started."""
        self._wake.set()

    async def keep(self) -> None:
        """Start for ever what is registered."""
        while True:
            self._wake.clear()
            while (instance := self._next()) is not None:
                await self._await_turn()
                await self._start(instance)
            await self._wake.wait()

    def _next(self) -> Instance | None:
        states: Counter[str] = Counter()
        registered = []
        for instance in self._pool.instances.values():
            if instance.state is InstanceState.REGISTERED:
                registered.append(instance)
            else:
                states[instance.service] += 1
        return min(
            registered,
            key=lambda i: (self._failed.get(i.port, 0.0), states[i.service], i.port),
            default=None,
        )

    async def _await_turn(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._starting() >= self._most_starting and time.monotonic() < deadline:
            await asyncio.sleep(STEP)

    def _starting(self) -> int:
        return sum(i.state is InstanceState.STARTING for i in self._pool.instances.values())

    async def _start(self, instance: Instance) -> None:
        if self._pool.instances.get(instance.port) != instance:
            return  # it was drained meanwhile
        try:
            await self._worker(self._supervisor.start, instance.name)
        except SocketpoolError as error:
            extra = {"instance": instance.name, "error": error.message}
            log.warning("start failed", extra=extra)
            self._failed[instance.port] = time.monotonic()
            await asyncio.sleep(RETRY_SECONDS)
            return
        self._failed.pop(instance.port, None)
        current = self._pool.instances.get(instance.port)
        if current is not None and current.state is InstanceState.REGISTERED:
            self._pool.apply(instance.port, InstanceEvent.SPAWNED, time.monotonic())
        self._look()
