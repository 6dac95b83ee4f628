"""Starts registered instances, a few at a time and in turn for all services.

supervisord answers nobody while it starts many at once, and many programs that start together take
the machine from those that serve.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from socketpool.core.decision import next_start
from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.errors import SocketpoolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance
    from socketpool.supervision.rpc import Supervisor
    from socketpool.supervision.rpcthread import Worker

TURN_SECONDS = 0.25
"""How long to wait for those that start already; a slow one must not hold up the rest."""

POLL_SECONDS = 0.01
RETRY_SECONDS = 0.5

log = logging.getLogger("socketpool.starter")


class Starter:
    """Starts the instances of one pool; ``wake`` is called after each."""

    def __init__(
        self, pool: Pool, supervisor: Supervisor, worker: Worker, *, wake: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._supervisor = supervisor
        self._worker = worker
        self._started = wake
        self._wake = asyncio.Event()
        self._max_starting = 2 * (os.cpu_count() or 1)

    def wake(self) -> None:
        """There is something to be started."""
        self._wake.set()

    async def run(self) -> None:
        """Start for ever what is registered."""
        while True:
            self._wake.clear()
            while (instance := next_start(self._pool.instances.values())) is not None:
                await self._await_turn()
                await self._start(instance)
            await self._wake.wait()

    async def _await_turn(self) -> None:
        deadline = time.monotonic() + TURN_SECONDS
        while self._starting() >= self._max_starting and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)

    def _starting(self) -> int:
        return sum(i.state is InstanceState.STARTING for i in self._pool.instances.values())

    async def _start(self, instance: Instance) -> None:
        if not self._waits(instance):
            return  # it was drained meanwhile
        try:
            await self._worker(self._supervisor.start, instance.name)
        except SocketpoolError as error:
            extra = {"instance": instance.name, "error": error.message}
            log.warning("start failed", extra=extra)
            if self._waits(instance):
                self._pool.note(instance.port, "start_refused_at", value=time.monotonic())
            await asyncio.sleep(RETRY_SECONDS)
            return
        if self._waits(instance):
            self._pool.apply(instance.port, InstanceEvent.SPAWNED, time.monotonic())
        self._started()

    def _waits(self, instance: Instance) -> bool:
        """Whether it, and not another on its port, still waits to be started."""
        now = self._pool.instances.get(instance.port)
        return (
            now is not None
            and now.block == instance.block
            and now.state is InstanceState.REGISTERED
        )
