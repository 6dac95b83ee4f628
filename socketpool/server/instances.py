"""Keeps the instances: asks supervisord about them, and makes events of what happens to them.

Everything that happens to an instance outside becomes an event of its state machine here; what is
then done about it is `Care`'s.  RPCs run in one worker thread and probes in tasks of their own;
leases never wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import HELD, MOVING, InstanceEvent, InstanceState
from socketpool.core.pool import EXITS_BEFORE_FAILED
from socketpool.errors import SocketpoolError
from socketpool.server.adoption import adopt, note_needs, remove_unknown_files
from socketpool.server.blocks import Blocks, drain
from socketpool.server.care import Care
from socketpool.server.drains import Drains
from socketpool.server.exits import ExitWatch
from socketpool.server.probes import Prober
from socketpool.server.starter import Starter
from socketpool.supervision.rpcthread import Worker
from socketpool.system.listeners import Listeners, is_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.core.backoff import Backoff
    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance, Lease
    from socketpool.supervision.rpc import ProcessInfo, Supervisor

MOVING_BEAT = 0.03
"""Seconds between looks while an instance is on its way; asking makes supervisord reap at once."""

SLOW_BEAT = 1.0
CALM_BEAT = 5.0
"""The same where all instances are up: exits are told, and only operators do anything else."""

FEW = 8
"""So many instances on their way are asked for one by one; for more of them, all at once."""

STARTING = frozenset(
    {
        InstanceState.REGISTERED,
        InstanceState.STARTING,
        InstanceState.RECYCLING,
        InstanceState.FAILED,
    }
)
"""States from which an instance may be found ready by a look."""

UP = HELD | {InstanceState.IDLE}

LONG_LEASE = 1.0
"""Seconds."""

SHARE = 0.2
CALM_SHARE = 0.01
"""The share of its time that supervisord may be asked: with hundreds of processes it is slow."""

log = logging.getLogger("socketpool.instances")


class InstanceKeeper:
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
        self.worker = Worker()
        self._pool = pool
        self._state = state
        self._supervisor = supervisor
        self._changed = changed
        self._look = asyncio.Event()
        self._full_look_at = 0.0
        self._exits = ExitWatch(self._exited)
        self.prober = Prober(pool, state, host=host, passed=self.look, suspect=self._distrust)
        self.care = Care(pool, state, supervisor, self.worker, backoff=backoff, look=self.look)
        self.starter = Starter(pool, supervisor, self.worker, look=self.look)
        self.blocks = Blocks(
            pool,
            state,
            supervisor,
            self.worker,
            host=host,
            registered=self.starter.wake,
            look=self.look,
        )
        self.drains = Drains(
            pool, state.drained, leaving=self.blocks.is_retiring, changed=self._on_drained
        )
        self._gone: dict[int, int] = {}  # port -> the process that was last seen to end

    def serve(self, services: dict[str, Service], changed: Collection[str] = ()) -> None:
        """From now on these are the services: what has changed is replaced, any other given up."""
        self.prober.services = dict(services)
        self.care.outdate(changed)
        self.blocks.retire_unserved()

    def adopt(self, processes: list[ProcessInfo], leased: Collection[int]) -> None:
        """Take over what supervisord already runs; ``leased`` are the ports of live leases."""
        for instance in adopt(self._pool, self.blocks, self.drains, processes, leased):
            if instance.pid:
                self.prober.trust(instance.pid)  # what it said, it said to the server before
                if instance.state in HELD:
                    self._watch(instance.port, instance.pid)
        note_needs(self._pool)
        remove_unknown_files(self._state.programs, processes)

    async def keep(self) -> None:
        """Watch for ever: observe, and act on what was observed."""
        self.prober.listen()
        while True:
            begun = time.monotonic()
            try:
                await self._beat()
            except (SocketpoolError, OSError) as error:
                log.warning("supervision failed", extra={"error": str(error)})
                await asyncio.sleep(SLOW_BEAT)
            cost = time.monotonic() - begun
            moving = any(map(self._needs_look, self._pool.instances.values()))
            if moving:
                await asyncio.sleep(max(MOVING_BEAT, 2 * cost))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(
                    max(self._full_look_at, time.monotonic() + MOVING_BEAT)
                ):
                    await self._look.wait()

    def look(self) -> None:
        """Something happened: look now rather than at the next beat."""
        self._look.set()

    def look_at_all(self) -> None:
        """Something happened that can be anywhere."""
        self._full_look_at = 0.0
        self.look()

    def look_over(self, lease: Lease) -> None:
        """A lease is about to give its instances back: the next one must not get a stopped one.

        Only after a while, since a look at each costs some microseconds and leases come by the
        thousand; what stops within a shorter lease, the probes find.
        """
        for grant in lease.grants:
            instance = self._pool.instances[grant.port]
            if time.monotonic() - instance.since >= LONG_LEASE and is_stopped(instance.pid):
                self._distrust(instance, "its process is stopped (SIGSTOP)")

    def close(self) -> None:
        """Let go of descriptors and the thread; the instances live on under supervisord."""
        self._exits.close()
        self.prober.close()
        self.worker.close()

    def _on_drained(self) -> None:
        self._changed()
        self.look_at_all()

    # -- observation -------------------------------------------------------------------------

    def _needs_look(self, instance: Instance) -> bool:
        """Whether it is on its way, or waits for supervisord to respawn it.

        What exits again and again while it is leased is left to supervisord's own slower pace, and
        what was not started yet to the `Starter`.
        """
        if instance.state in HELD:
            loops = instance.exits >= EXITS_BEFORE_FAILED
            return not (instance.pid or loops or self.care.is_parked(instance.port))
        return instance.state in MOVING and instance.state is not InstanceState.REGISTERED

    async def _beat(self) -> None:
        self._look.clear()
        asked = time.monotonic()
        moving = [i for i in self._pool.instances.values() if self._needs_look(i)]
        whole = asked >= self._full_look_at or len(moving) > FEW
        if whole:
            processes: Iterable[ProcessInfo] = await self.worker(self._supervisor.processes)
            observed = list(self._pool.instances.values())
            cost = time.monotonic() - asked
            calm = all(i.pid and i.state in UP for i in observed)
            pause = max(CALM_BEAT, cost / CALM_SHARE) if calm else max(SLOW_BEAT, cost / SHARE)
            self._full_look_at = time.monotonic() + pause
        else:
            found = [await self.worker(self._supervisor.process, i.name) for i in moving]
            processes = [process for process in found if process is not None]
            observed = moving
        by_name = {f"{p.group}:{p.name}": p for p in processes}
        starting = any(i.state in STARTING for i in observed)
        listeners = await asyncio.to_thread(Listeners) if starting else None
        news = False
        for instance in observed:
            current = self._pool.instances.get(instance.port)
            if current is None or current.block != instance.block or current.since > asked:
                continue  # what supervisord said was true before
            try:
                news |= await self._observe(current, by_name.get(current.name), listeners)
            except (SocketpoolError, OSError) as error:  # the others must not suffer from it
                extra = {"instance": instance.name, "error": str(error)}
                log.warning("supervision failed", extra=extra)
        for instance in self._pool.overdue(time.monotonic()):
            self.care.fail(instance)
            news = True
        self.care.replace_outdated()
        if news:
            self._changed()

    async def _observe(
        self, instance: Instance, process: ProcessInfo | None, listeners: Listeners | None
    ) -> bool:
        """Let what supervisord says happen to the instance; True when it became idle."""
        if process is None:
            self._vanished(instance)
            return False
        pid, fresh = self._identify(instance, process)
        instance = self._pool.instances[instance.port]
        match instance.state:
            case InstanceState.STARTING if process.state == "STOPPED":
                self._pool.apply(instance.port, InstanceEvent.STOPPED, time.monotonic())
                log.info("stopped by an operator", extra={"instance": instance.name})
            case InstanceState.STARTING | InstanceState.FAILED:
                if pid and self._is_ready(instance, pid, listeners):
                    self._watch(instance.port, pid)
                    self.care.note_ready(instance.port)
                    return True
                if instance.state is InstanceState.FAILED:
                    await self.care.try_again(instance, process, fresh=fresh)
            case InstanceState.RECYCLING:
                await self.care.recycle(instance, process, pid)
            case InstanceState.STOPPING:
                await self.care.stop(instance, process)
            case InstanceState.REGISTERED | InstanceState.STOPPED:
                self._at_rest(instance, fresh=fresh)
            case InstanceState.LEASED | InstanceState.DRAINING:
                self.care.park(instance.port, parked=process.at_rest)
        return False

    def _identify(self, instance: Instance, process: ProcessInfo) -> tuple[int, bool]:
        """The process that the instance has now, 0 for none, and whether that is a new one."""
        port = instance.port
        pid = process.pid if process.alive else 0
        if pid == self._gone.get(port):
            pid = 0  # what supervisord said was true before its exit was told to us
        if instance.pid and pid != instance.pid:
            self._lose(port)
        fresh = pid not in {0, self._pool.instances[port].pid}
        if fresh:
            self._pool.saw(port, pid)
            self._watch(port, pid)
        return pid, fresh

    def _is_ready(self, instance: Instance, pid: int, listeners: Listeners | None) -> bool:
        if listeners is None or instance.exits >= EXITS_BEFORE_FAILED:
            return False
        return self.prober.is_ready(instance, pid, listeners)

    def _at_rest(self, instance: Instance, *, fresh: bool) -> None:
        if fresh:
            self.care.spawned(instance)  # if it was stopped, an operator has started it
            if self.blocks.is_retiring(instance.block):
                drain(self._pool, self._pool.instances[instance.port])
        elif instance.state is InstanceState.REGISTERED:
            self.starter.wake()

    def _vanished(self, instance: Instance) -> None:
        """supervisord doesn't know it any more: an operator removed its group."""
        port = instance.port
        if instance.pid:
            self._lose(port)
        self.care.park(port, parked=True)
        drain(self._pool, self._pool.instances[port])
        if self._pool.instances[port].state is InstanceState.STOPPING:
            self._pool.apply(port, InstanceEvent.STOPPED, time.monotonic())
        if self._pool.instances[port].state is InstanceState.STOPPED:
            self._pool.remove(port, time.monotonic())
            log.warning("removed by an operator", extra={"instance": instance.name})

    # -- trust -------------------------------------------------------------------------------

    def _distrust(self, instance: Instance, reason: str) -> None:
        """A ready instance does not answer: only ``kill -9`` reaches one that is stopped.

        A leased one is its holder's, but nobody else gets it as it is.
        """
        if instance.dirty:
            return
        log.error("instance does not work", extra={"instance": instance.name, "reason": reason})
        after = self._pool.apply(instance.port, InstanceEvent.DISTRUSTED, time.monotonic())
        if after.state not in HELD:
            self._exits.kill(instance.port)
            self.look()

    # -- exits -------------------------------------------------------------------------------

    def _watch(self, port: int, pid: int) -> None:
        if not self._exits.watch(port, pid):
            self.look()

    def _exited(self, port: int) -> None:
        if port in self._pool.instances and self._pool.instances[port].pid:
            self._lose(port)
        self.look()

    def _lose(self, port: int) -> None:
        self._exits.forget(port)
        pid = self._gone[port] = self._pool.instances[port].pid
        self.prober.forget(port, pid)
        instance = self._pool.instances[port]
        if instance.state in {InstanceState.REGISTERED, InstanceState.STOPPED}:
            self._pool.saw(port, 0)
            return
        instance = self._pool.apply(port, InstanceEvent.LOST, time.monotonic())
        self.care.note_exit(instance)
        log.info("process exited", extra={"instance": instance.name, "state": instance.state})
