"""Compares what there should be with what there is, now and then, and mends what differs.

Our table, the configuration files, and the processes and listening sockets of the machine.  What
supervisord says of each instance is compared by `InstanceManager` already.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import psutil

from socketpool.errors import SocketpoolError
from socketpool.supervision import conf
from socketpool.system.listeners import Foreign, Listeners
from socketpool.system.processes import child_of, end, orphans

if TYPE_CHECKING:
    from socketpool.config.statedir import StateDir
    from socketpool.core.pool import Pool
    from socketpool.server.instances.instanceblocks import Blocks

INTERVAL_SECONDS = 10.0
ORPHAN_GRACE = 0.5

log = logging.getLogger("socketpool.reconcile")


class Reconciler:
    """Keeps one pool and its machine in step."""

    def __init__(
        self, pool: Pool, state: StateDir, blocks: Blocks, *, interval: float = INTERVAL_SECONDS
    ) -> None:
        self.foreign: tuple[Foreign, ...] = ()
        self._pool = pool
        self._state = state
        self._blocks = blocks
        self._interval = interval
        # Port -> its listening sockets and the process that was seen to own them.
        self._verified: dict[int, tuple[frozenset[str], int]] = {}

    async def run(self) -> None:
        """Compare for ever, at an interval."""
        while True:
            try:
                await self.run_once()
            except (SocketpoolError, OSError, psutil.Error) as error:
                log.warning("reconciling failed", extra={"error": str(error)})
            await asyncio.sleep(self._interval)

    async def run_once(self) -> None:
        """Compare once."""
        if not self._blocks.changing:
            self._restore_files()
        instances = {i.port: i.pid for i in self._pool.instances.values() if i.pid}
        await asyncio.to_thread(self._end_orphans, instances)
        foreign = await asyncio.to_thread(self._find_foreign)
        for one in set(foreign) - set(self.foreign):
            extra = {"port": one.port, "pid": one.pid, "program": one.program}
            log.warning("a port of the pool is held by another program", extra=extra)
        self.foreign = tuple(foreign)

    def _restore_files(self) -> None:
        """Without its file a block would be gone after the next ``supervisorctl update``."""
        blocks: dict[str, list[int]] = {}
        for instance in self._pool.instances.values():
            if not self._blocks.is_retiring(instance.block):
                blocks.setdefault(instance.block, []).append(instance.port)
        service = {i.block: i.service for i in self._pool.instances.values()}
        for block, ports in blocks.items():
            path = self._state.programs / f"{block}.conf"
            if not path.exists():
                run = range(min(ports), max(ports) + 1)
                conf.install(path, conf.block_conf(self._state, block, service[block], run))
                log.warning("a configuration file was missing", extra={"file": path.name})

    def _end_orphans(self, instances: dict[int, int]) -> None:
        found = orphans(self._state.supervisor_socket, os.getppid(), instances)
        for process in found:
            log.warning("left behind by an instance", extra={"pid": process.pid})
        end(found, grace=ORPHAN_GRACE)

    def _find_foreign(self) -> list[Foreign]:
        listeners = Listeners()
        instances = dict(self._pool.instances)
        doubtful = []
        for port in filter(self._pool.ports.__contains__, listeners.ports()):
            pid = instances[port].pid if port in instances else 0
            known = (listeners.sockets(port), pid)
            if pid and (self._verified.get(port) == known or listeners.owned(port, pid)):
                self._verified[port] = known
            else:
                doubtful.append(port)
        others = {i.pid: i.port for i in instances.values() if i.pid}
        return [one for one in listeners.foreign(doubtful) if not _is_ours(one, others)]


def _is_ours(listener: Foreign, instances: dict[int, int]) -> bool:
    """Whether it belongs to a process of the pool that is not known yet, as after a respawn."""
    leader = child_of(os.getppid(), listener.pid)
    return leader != 0 and instances.get(leader, listener.port) == listener.port
