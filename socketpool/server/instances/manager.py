"""Manages the instances: observes them, has it decided what is to be done, and has that done.

supervisord is asked in one worker thread and probes run in tasks of their own; leases never wait
for either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from socketpool.core.decision import Observation, decide, needs_look
from socketpool.core.lifecycle import HELD, InstanceState
from socketpool.errors import SocketpoolError
from socketpool.server.instances.act import Actor
from socketpool.server.instances.adoption import adopt, note_needs, remove_unknown_files
from socketpool.server.instances.drains import Drains
from socketpool.server.instances.instanceblocks import Blocks
from socketpool.server.instances.live import LiveInstances
from socketpool.server.instances.observe import BECOMING_READY, Observer
from socketpool.server.instances.outdated import Updater
from socketpool.server.instances.probes import Prober
from socketpool.server.instances.starter import Starter
from socketpool.supervision.rpcthread import Worker
from socketpool.system.listeners import Listeners, is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.core.backoff import Backoff
    from socketpool.core.pool import Pool
    from socketpool.core.records import Lease
    from socketpool.server.instances.live import LiveInstance
    from socketpool.supervision.rpc import ProcessInfo, Supervisor

MOVING_INTERVAL = 0.03
"""Seconds between looks while an instance is on its way; asking makes supervisord reap at once."""

SLOW_INTERVAL = 1.0
CALM_INTERVAL = 5.0
"""The same where all instances are up: the kernel tells exits, and only operators do the rest."""

MAX_SINGLE = 8
"""How many instances are asked for one by one; when there are more, all are asked for at once."""

UP = HELD | {InstanceState.IDLE}

LONG_LEASE = 1.0
"""After how many seconds of a lease it is looked whether its instances were stopped by a signal."""

SHARE = 0.2
CALM_SHARE = 0.01
"""The share of its time that supervisord may be asked: with hundreds of processes it is slow."""

log = logging.getLogger("socketpool.instances")


class InstanceManager:
    """The instances of one pool.  ``changed`` is called when some became idle or failed."""

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        supervisor: Supervisor,
        *,
        host: str,
        backoff: Backoff,
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._state = state
        self._supervisor = supervisor
        self._changed = changed
        self._awake = asyncio.Event()
        self._full_look_at = 0.0
        self._worker = Worker()
        self._instances = LiveInstances(pool)
        self._actor = Actor(pool, self._instances, state, supervisor, self._worker, backoff=backoff)
        self._updater = Updater(pool, self._instances, self._actor)
        self.prober = Prober(self._instances, state, host=host, wake=self.wake)
        self.starter = Starter(pool, supervisor, self._worker, wake=self.wake)
        self.blocks = Blocks(
            pool, self._instances, state, supervisor, self._worker, host=host, wake=self.wake
        )
        self._observer = Observer(pool, self.prober, self.blocks, watch=self._watch)
        self.drains = Drains(
            pool, state.drained, leaving=self.blocks.is_retiring, changed=self._on_drained
        )

    def configure(
        self, services: dict[str, Service], backoff: Backoff, changed: Collection[str] = ()
    ) -> None:
        """From now on these are the services.  Instances of changed ones are replaced, and those of
        others given up."""
        self._actor.backoff = backoff
        self.prober.services = dict(services)
        self._updater.outdate(changed)
        self.blocks.retire_unserved()
        self.wake()

    def adopt(self, processes: list[ProcessInfo], leased: Collection[int]) -> None:
        """Take over what supervisord already runs; ``leased`` are the ports of live leases."""
        for record in adopt(self._pool, self.blocks, self.drains, processes, leased):
            live = self._instances.register(record)
            if record.pid:
                # It said that it is ready to the pool server that ran before.
                live.meet(record.pid).said_ready = True
                if record.state in HELD:
                    self._watch(live)
        note_needs(self._pool)
        remove_unknown_files(self._state.programs, processes)

    async def run(self) -> None:
        """Manage the instances for ever."""
        self.prober.listen()
        while True:
            begun = time.monotonic()
            try:
                await self._look()
            except (SocketpoolError, OSError) as error:
                log.warning("supervision failed", extra={"error": str(error)})
                await asyncio.sleep(SLOW_INTERVAL)
            cost = time.monotonic() - begun
            if any(map(needs_look, self._pool.instances.values())):
                await asyncio.sleep(max(MOVING_INTERVAL, 2 * cost))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(
                    max(self._full_look_at, time.monotonic() + MOVING_INTERVAL)
                ):
                    await self._awake.wait()

    def wake(self, live: LiveInstance | None = None, seen: Observation | None = None) -> None:
        """Something has happened: do at once what follows from it, and soon look for more.

        ``seen`` is what was seen of the instance ``live``, without asking supervisord.
        """
        if live is not None and seen is not None:
            self._actor.act_at_once(live, decide(live.record, seen, time.monotonic()))
        if self._pool.has_registered():
            self.starter.wake()
        self._awake.set()

    def check_before_return(self, lease: Lease) -> None:
        """A lease is about to give its instances back: the next one must not get a stopped one.

        Only after a while, since a look at each costs some microseconds and leases come by the
        thousand; what stops within a shorter lease, the probes find.
        """
        for grant in lease.grants:
            live = self._instances.get(grant.port)
            if live is None or time.monotonic() - live.record.since < LONG_LEASE:
                continue
            if is_stopped(live.record.pid):
                complaint = "its process is stopped (SIGSTOP)"
                self.wake(live, Observation(complaint=complaint, certain=True))

    def last_lines(self, port: int) -> list[str]:
        """The last lines of the log of an instance that has failed; none for others."""
        live = self._instances.get(port)
        return [] if live is None else live.last_lines

    def close(self) -> None:
        """Let go of descriptors and the thread; the instances live on under supervisord."""
        self._instances.close()
        self.prober.close()
        self._worker.close()

    def _on_drained(self) -> None:
        self._full_look_at = 0.0
        self._changed()
        self.wake()

    def _watch(self, live: LiveInstance) -> None:
        if live.process is not None:
            live.process.watch(lambda: self.wake(live, Observation(ended=True)))

    # -- looks -------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Ask about what is on its way, or from time to time about all, and act on it."""
        self._awake.clear()
        asked = time.monotonic()
        observed, processes = await self._ask(asked)
        by_name = {f"{p.group}:{p.name}": p for p in processes}
        is_becoming_ready = any(live.record.state in BECOMING_READY for live in observed)
        listeners = await asyncio.to_thread(Listeners) if is_becoming_ready else None
        for live in observed:
            if self._instances.get(live.port) is not live or live.record.since > asked:
                continue  # what supervisord said was true before
            name = live.record.name
            try:
                seen = self._observer.observe(live, by_name.get(name), listeners)
                await self._actor.act(live, decide(live.record, seen, time.monotonic()))
            except (SocketpoolError, OSError) as error:  # the others must not suffer from it
                log.warning("supervision failed", extra={"instance": name, "error": str(error)})
        self._updater.replace()
        if self._actor.news:
            self._actor.news = False
            self._changed()

    async def _ask(self, now: float) -> tuple[list[LiveInstance], Iterable[ProcessInfo]]:
        """The instances that were asked about, and what supervisord said."""
        moving = [live for live in self._instances if needs_look(live.record)]
        if now < self._full_look_at and len(moving) <= MAX_SINGLE:
            names = [live.record.name for live in moving]
            found = [await self._worker(self._supervisor.process, name) for name in names]
            still = [live for live in moving if self._instances.get(live.port) is live]
            return still, [process for process in found if process is not None]
        processes = await self._worker(self._supervisor.processes)
        observed = list(self._instances)
        cost = time.monotonic() - now
        is_calm = all(live.record.pid and live.record.state in UP for live in observed)
        pause = (
            max(CALM_INTERVAL, cost / CALM_SHARE) if is_calm else max(SLOW_INTERVAL, cost / SHARE)
        )
        self._full_look_at = time.monotonic() + pause
        return observed, processes
