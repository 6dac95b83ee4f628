"""What is done about instances: they are restarted, halted, tried again, brought up to date.

`InstanceKeeper` observes; this acts on what it has observed.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import MOVING, InstanceEvent, InstanceState
from socketpool.core.pool import EXITS_BEFORE_FAILED
from socketpool.supervision.logtail import last_lines
from socketpool.system.processes import started

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from socketpool.config.statedir import StateDir
    from socketpool.core.backoff import Backoff
    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance
    from socketpool.supervision.rpc import ProcessInfo, Supervisor
    from socketpool.supervision.rpcthread import Worker

log = logging.getLogger("socketpool.instances")


class Care:
    """Cares for the instances of one pool.

    ``look`` is called when something is to be observed soon.
    """

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        supervisor: Supervisor,
        worker: Worker,
        *,
        backoff: Backoff,
        look: Callable[[], None],
    ) -> None:
        self.backoff = backoff
        self.last_words: dict[int, list[str]] = {}  # port -> end of the log of a failed instance
        self._pool = pool
        self._state = state
        self._supervisor = supervisor
        self._worker = worker
        self._look = look
        self._halted: set[int] = set()  # failed instances that supervisord no longer respawns
        self._parked: set[int] = set()  # leased ones that an operator has stopped
        self._renewed: set[int] = set()  # instances whose process ended since they were given back
        self._outdated: dict[int, float] = {}  # port -> when its service was changed (`started`)

    def outdate(self, services: Collection[str]) -> None:
        """These services are not what their instances were started as."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for instance in self._pool.instances.values():
            if instance.service in services:
                self._outdated[instance.port] = now
        self._look()

    def is_parked(self, port: int) -> bool:
        """Whether an operator has stopped the leased instance, and no respawn is to be expected."""
        return port in self._parked

    def park(self, port: int, *, parked: bool) -> None:
        """Note whether a leased instance is at rest."""
        (self._parked.add if parked else self._parked.discard)(port)

    def note_exit(self, instance: Instance) -> None:
        """The process has ended."""
        if instance.state is InstanceState.RECYCLING:
            self._renewed.add(instance.port)

    def note_ready(self, port: int) -> None:
        """A starting or failed instance is ready."""
        instance = self._pool.apply(port, InstanceEvent.READY, time.monotonic())
        self.last_words.pop(port, None)
        self._halted.discard(port)
        if instance.failures:
            log.info("works again", extra={"instance": instance.name})

    async def try_again(self, instance: Instance, process: ProcessInfo, *, fresh: bool) -> None:
        """What exits again and again is halted meanwhile; what is only slow is left to go on."""
        port = instance.port
        if process.at_rest:
            if time.monotonic() >= instance.retry_at:
                self._halted.discard(port)
                await self._start(instance)
            else:
                self._halted.add(port)
        elif port in self._halted and fresh:  # an operator has started it
            self._halted.discard(port)
            self.spawned(instance)
        elif instance.exits >= EXITS_BEFORE_FAILED or time.monotonic() >= instance.retry_at:
            await self.stop(instance, process)

    async def recycle(self, instance: Instance, process: ProcessInfo, pid: int) -> None:
        """Have another process in its place; one that was there while it was leased won't do."""
        if process.at_rest and instance.port in self._parked:
            self._pool.apply(instance.port, InstanceEvent.STOPPED, time.monotonic())
        elif process.at_rest:
            await self._start(instance)
        elif pid and instance.port in self._renewed:
            self.spawned(instance)  # supervisord has respawned it
        elif pid:
            await self.stop(instance, process)

    def spawned(self, instance: Instance) -> None:
        """It has another process, or is about to."""
        self._pool.apply(instance.port, InstanceEvent.SPAWNED, time.monotonic())
        self._renewed.discard(instance.port)
        self._parked.discard(instance.port)

    async def stop(self, instance: Instance, process: ProcessInfo) -> None:
        """Ask supervisord to stop it; in the moment between an exit and the respawn it can't."""
        if process.at_rest:
            if instance.state is InstanceState.STOPPING:
                self._pool.apply(instance.port, InstanceEvent.STOPPED, time.monotonic())
        elif process.state != "STOPPING":
            await self._worker(self._supervisor.stop, instance.name)

    def fail(self, instance: Instance) -> None:
        """Give it up for a while, and keep what it said last."""
        delay = self.backoff.delay(instance.failures + 1, random.random())  # noqa: S311
        if instance.exits < EXITS_BEFORE_FAILED and instance.service in self._pool.services:
            # It may only be slow, and must have longer at each try.
            delay = max(delay, self._pool.services[instance.service].start_limit)
        self._pool.fail(instance.port, time.monotonic() + delay, time.monotonic())
        self.last_words[instance.port] = last_lines(
            self._state.instance_log(instance.service, instance.port)
        )
        extra = {"instance": instance.name, "exits": instance.exits, "again_in": round(delay, 3)}
        log.error("instance failed", extra=extra)

    def replace_outdated(self) -> None:
        """Restart instances of changed services, one of each service at a time.

        When one fails in its new form, the others stay as they are.
        """
        for port, changed in list(self._outdated.items()):
            known = self._pool.instances.get(port)
            # Not whoever was noticed since then: it may have read what its service was before.
            if known is None or (known.pid and started(known.pid) >= changed):
                del self._outdated[port]
        if not self._outdated:
            return
        outdated = [self._pool.instances[port] for port in sorted(self._outdated)]
        marked = {i.service for i in outdated if i.state is InstanceState.LEASED and i.dirty}
        busy = {
            i.service
            for i in self._pool.instances.values()
            if i.state in MOVING
            or (i.state is InstanceState.FAILED and i.port not in self._outdated)
        }
        # An idle one first; of those that are leased, the last to be: its lease may be a short one.
        outdated.sort(key=lambda i: (i.state is not InstanceState.IDLE, -i.since))
        for instance in outdated:
            if instance.state is InstanceState.FAILED:
                self._pool.retry_now(instance.port)
            elif instance.service not in busy and self._may_replace(instance, marked):
                busy.add(instance.service)
                self._pool.apply(instance.port, InstanceEvent.DISTRUSTED, time.monotonic())
                self._look()

    @staticmethod
    def _may_replace(instance: Instance, marked: Collection[str]) -> bool:
        """A leased one is marked and goes when its lease ends; meanwhile no other is marked."""
        if instance.state is InstanceState.LEASED:
            return instance.service not in marked
        return instance.state is InstanceState.IDLE

    async def _start(self, instance: Instance) -> None:
        await self._worker(self._supervisor.start, instance.name)
        if self._pool.instances.get(instance.port) == instance:
            self.spawned(instance)
