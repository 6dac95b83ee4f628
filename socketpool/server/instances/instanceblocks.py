"""The blocks of instances: registers more of them with supervisord, and gives them up again.

supervisord can't add to a program's processes or take some of them away, so a service grows and
shrinks by whole blocks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.records import Instance
from socketpool.core.warmset import surplus_blocks
from socketpool.errors import SocketpoolError
from socketpool.supervision import conf
from socketpool.supervision.rpc import ConfigRefused
from socketpool.system.processes import busy_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from socketpool.config.statedir import StateDir
    from socketpool.core.pool import Pool
    from socketpool.server.instances.live import LiveInstances
    from socketpool.supervision.rpc import Supervisor
    from socketpool.supervision.rpcthread import Worker

MOST_IN_BLOCK = 64
"""A smaller block is given up sooner, a larger one costs supervisord less."""

SPARE_STATES = frozenset({InstanceState.IDLE, InstanceState.FAILED})

log = logging.getLogger("socketpool.blocks")


class Blocks:
    """The blocks of one pool.

    ``wake`` is called when there are instances to be started or stopped.
    """

    def __init__(
        self,
        pool: Pool,
        instances: LiveInstances,
        state: StateDir,
        supervisor: Supervisor,
        worker: Worker,
        *,
        host: str,
        wake: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._instances = instances
        self._state = state
        self._supervisor = supervisor
        self._worker = worker
        self._host = host
        self._wake = wake
        self._changing = asyncio.Lock()
        self._numbers: dict[str, int] = {}  # service -> highest block number
        self._retiring: set[str] = set()  # blocks that are being given up

    def knows(self, block: str, service: str, number: int) -> None:
        """A block is there already."""
        self._numbers[service] = max(self._numbers.get(service, 0), number)
        self._retiring.discard(block)

    def refused_files(self) -> list[str]:
        """The configuration files that supervisord could not read, and that were set aside."""
        return sorted(f"{path.stem}.conf" for path in self._state.programs.glob("*.refused"))

    @property
    def changing(self) -> bool:
        """Whether blocks are being added or removed just now."""
        return self._changing.locked()

    async def keep_warm(self, services: Sequence[str], waiting: Mapping[str, int]) -> None:
        """Have as many instances of these as will be needed, and more for those who wait."""
        now = time.monotonic()
        for service in [s for s in self._pool.services.values() if s.name in services]:
            missing = self._pool.missing(service.name, waiting.get(service.name, 0), now)
            if missing > 0:
                await self._grow(service.name, max(missing, len(self._pool.of(service.name)) // 4))

    async def shrink(self) -> None:
        """Give up blocks that were not needed for long, and remove those that have come to rest."""
        now = time.monotonic()
        for service in self._pool.services.values():
            usage = self._pool.usage[service.name]
            needed = service.warm + usage.ahead(now) + usage.peak(now)
            for block in self._surplus(service.name, min(needed, service.max_instances)):
                log.info("giving up", extra={"block": block})
                self.retire(block)
        self.retire_unserved()  # those too whose registration outlasted their service
        for block in list(self._retiring):
            try:
                await self._remove_if_at_rest(block)
            except (SocketpoolError, OSError) as error:
                log.warning("removal failed", extra={"block": block, "error": str(error)})

    def retire(self, block: str) -> None:
        """Drain the block and remove it when all of it has stopped."""
        self._retiring.add(block)
        for instance in list(self._pool.instances.values()):
            if instance.block == block and instance.state is not InstanceState.STOPPED:
                drain(self._pool, instance)
        self._wake()

    def retire_unserved(self) -> None:
        """Give up all blocks of services that the pool no longer has."""
        for instance in list(self._pool.instances.values()):
            if instance.service not in self._pool.services and not self.is_retiring(instance.block):
                self.retire(instance.block)

    def is_retiring(self, block: str) -> bool:
        """Whether the block is being given up."""
        return block in self._retiring

    # -- growth ------------------------------------------------------------------------------

    async def _grow(self, service: str, wanted: int) -> None:
        async with self._changing:
            busy: set[int] = set()
            runs: list[range] = []
            while service in self._pool.services:
                runs = self._pool.plan_growth(service, wanted, time.monotonic(), busy)
                ports = [port for run in runs for port in run]
                found = await self._worker(busy_ports, self._host, ports)
                if not found:
                    break
                busy |= found
                log.warning("ports held by others", extra={"ports": sorted(found)})
            for run in runs:
                for start in range(run.start, run.stop, MOST_IN_BLOCK):
                    block = range(start, min(start + MOST_IN_BLOCK, run.stop))
                    await self._register(service, block)
            working = sum(i.state is not InstanceState.FAILED for i in self._pool.of(service))
            plan = self._pool.services.get(service)
            if runs and plan is not None:
                self._pool.usage[service].note_need(max(0, working - plan.warm), time.monotonic())

    async def _register(self, service: str, ports: range) -> None:
        number = self._numbers[service] = self._numbers.get(service, 0) + 1
        block = conf.block_name(service, number)
        path = self._state.programs / f"{block}.conf"
        try:
            conf.install(path, conf.block_conf(self._state, block, service, ports))
            await self._worker(self._add_group, block)
        except (SocketpoolError, OSError) as error:
            # A file that supervisord can't take would block every later reload.
            path.unlink(missing_ok=True)
            log.error("registration failed", extra={"block": block, "error": str(error)})
            return
        now = time.monotonic()
        for port in ports:
            self._instances.register(Instance(service, port, block, InstanceState.REGISTERED, now))
        log.info("registered", extra={"block": block, "ports": f"{ports.start}-{ports.stop - 1}"})
        self._wake()

    def _add_group(self, block: str) -> None:
        """For the worker: a bad file of somebody else's must not block ours."""
        try:
            self._supervisor.add_group(block)
        except ConfigRefused:
            self._set_bad_files_aside()
            self._supervisor.add_group(block)

    def _set_bad_files_aside(self) -> None:
        """Rename the files that supervisord can't read, each judged by supervisord itself."""
        found = sorted(self._state.programs.glob("*.conf"))
        aside = {path: path.rename(path.with_suffix(".refused")) for path in found}
        for path, kept in aside.items():
            kept.rename(path)
            try:
                self._supervisor.reload()
            except ConfigRefused as error:
                path.rename(kept)
                extra = {"file": path.name, "error": error.message}
                log.error("supervisord refuses a file; set aside", extra=extra)

    # -- shrinking ---------------------------------------------------------------------------

    def _surplus(self, service: str, needed: int) -> list[str]:
        blocks: dict[str, list[Instance]] = {}
        for instance in self._pool.of(service):
            if instance.block not in self._retiring:
                blocks.setdefault(instance.block, []).append(instance)
        kept = sum(
            i.state is not InstanceState.FAILED and i.state is not InstanceState.STOPPED
            for name, block in blocks.items()
            if not _is_spare(block)
            for i in block
        )
        spare = sorted(n for n, block in blocks.items() if _is_spare(block))
        works = [[i.state is InstanceState.IDLE for i in blocks[name]] for name in spare]
        return [spare[index] for index in surplus_blocks(works, needed - kept)]

    async def _remove_if_at_rest(self, block: str) -> None:
        mine = [i for i in self._pool.instances.values() if i.block == block]
        if any(i.state is not InstanceState.STOPPED for i in mine):
            return
        async with self._changing:
            # First the file: what has one comes back with the next start of supervisord.
            (self._state.programs / f"{block}.conf").unlink(missing_ok=True)
            await self._worker(self._supervisor.remove_group, block)
            self._retiring.discard(block)
            for instance in mine:
                known = self._pool.instances.get(instance.port)
                if known is not None and known.block == block:
                    self._instances.remove(instance.port)
        log.info("removed", extra={"block": block, "instances": len(mine)})


def _is_spare(block: list[Instance]) -> bool:
    return all(instance.state in SPARE_STATES for instance in block)


def drain(pool: Pool, instance: Instance) -> None:
    """Let nobody have the instance any more, unless that is so already."""
    draining = (InstanceState.DRAINING, InstanceState.STOPPING, InstanceState.STOPPED)
    if instance.state not in draining:
        pool.apply(instance.port, InstanceEvent.DRAINED, time.monotonic())
