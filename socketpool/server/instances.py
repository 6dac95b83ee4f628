"""Keeps the instances: registers them with supervisord, watches them, restarts what was given back.

Everything that happens to an instance outside becomes an event of its state machine here.  RPCs and
looks at the kernel's tables run in one worker thread; leases never wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.records import Instance
from socketpool.errors import SocketpoolError
from socketpool.supervision import conf
from socketpool.supervision.notify import ReadyMessages
from socketpool.supervision.processes import busy_ports, listens, speaks_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from socketpool.config.statedir import StateDir
    from socketpool.core.pool import Pool
    from socketpool.supervision.rpc import ProcessInfo, Supervisor

T = TypeVar("T")

MOVING_BEAT = 0.03
"""Seconds between looks while an instance is on its way; asking makes supervisord reap at once."""

SLOW_BEAT = 1.0

log = logging.getLogger("socketpool.instances")


class InstanceKeeper:
    """The instances of one pool.  ``changed`` is called whenever some became idle."""

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        supervisor: Supervisor,
        *,
        host: str,
        changed: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._state = state
        self._supervisor = supervisor
        self._host = host
        self._changed = changed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="supervision")
        self._look = asyncio.Event()
        self._growing = asyncio.Lock()
        self._pidfds: dict[int, int] = {}  # port -> descriptor that turns readable at its exit
        self._messages = ReadyMessages(state.notify_socket)
        self._said_ready: set[int] = set()  # processes, as the kernel named them
        self._gone: dict[int, int] = {}  # port -> the process that was last seen to end
        self._blocks: dict[str, int] = {}  # service -> highest block number

    async def adopt(self, processes: list[ProcessInfo], leased: Collection[int]) -> None:
        """Take over what supervisord already runs, after a restart of the pool server.

        Instances in no lease that keep state between clients are restarted: nobody knows what
        was done with them meanwhile.
        """
        groups = set()
        for process in processes:
            groups.add(process.group)
            parsed = conf.parse_instance(process.group, process.name)
            if parsed is None or parsed[0] not in self._pool.services:
                continue
            service, number, port = parsed
            self._blocks[service] = max(self._blocks.get(service, 0), number)
            state = InstanceState.STARTING
            if port in leased:
                state = InstanceState.LEASED
            elif self._pool.services[service].restart and process.alive:
                state = InstanceState.RECYCLING
            self._pool.add(Instance(service, port, process.group, state, _now(), process.pid))
            if process.alive:
                self._said_ready.add(process.pid)  # whatever it said, it said to the server before
            if process.at_rest:
                await self._run(self._supervisor.start, f"{process.group}:{process.name}")
            elif state is InstanceState.LEASED and process.alive:
                self._watch_exit(port, process.pid)
        for path in self._state.programs.glob("*.conf"):
            if path.stem not in groups:
                path.unlink()

    async def keep(self) -> None:
        """Watch for ever: observe, and act on what was observed."""
        asyncio.get_running_loop().add_reader(self._messages, self._hear)
        while True:
            try:
                await self._beat()
            except (SocketpoolError, OSError) as error:
                log.warning("supervision failed", extra={"error": str(error)})
                await asyncio.sleep(SLOW_BEAT)
            moving = not self._pool.settled()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOVING_BEAT if moving else SLOW_BEAT):
                    await self._look.wait()
            self._look.clear()

    def look(self) -> None:
        """Something happened: look now rather than at the next beat."""
        self._look.set()

    async def keep_warm(self, demand: Mapping[str, int]) -> None:
        """Have ``warm`` instances of each service idle or on their way, and more for who waits."""
        for service in self._pool.services.values():
            coming = sum(
                i.service == service.name and i.state is not InstanceState.LEASED
                for i in self._pool.instances.values()
            )
            missing = service.warm + demand.get(service.name, 0) - coming
            if missing > 0:
                await self._grow(service.name, max(missing, min(service.warm, 4)))

    def close(self) -> None:
        """Let go of descriptors and the thread; the instances live on under supervisord."""
        for port in list(self._pidfds):
            self._unwatch_exit(port)
        asyncio.get_running_loop().remove_reader(self._messages)
        self._messages.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # -- growth ------------------------------------------------------------------------------

    async def _grow(self, service: str, wanted: int) -> None:
        async with self._growing:
            busy: set[int] = set()
            while runs := self._pool.plan_growth(service, wanted, busy):
                ports = [port for run in runs for port in run]
                found = await self._run(busy_ports, self._host, ports)
                if not found:
                    break
                busy |= found
                log.warning("ports held by others", extra={"ports": sorted(found)})
            for run in runs:
                await self._register(service, run)

    async def _register(self, service: str, ports: range) -> None:
        number = self._blocks[service] = self._blocks.get(service, 0) + 1
        block = conf.block_name(service, number)
        path = self._state.programs / f"{block}.conf"
        try:
            conf.install(path, conf.block_conf(self._state, block, service, ports))
            await self._run(self._supervisor.add_group, block)
        except (SocketpoolError, OSError) as error:
            # A file that supervisord can't take would block every later reload.
            path.unlink(missing_ok=True)
            log.error("registration failed", extra={"block": block, "error": str(error)})
            return
        for port in ports:
            self._pool.add(Instance(service, port, block, since=_now()))
        for port in ports:
            await self._run(self._supervisor.start, f"{block}:{port}")
        log.info("registered", extra={"block": block, "ports": f"{ports.start}-{ports.stop - 1}"})
        self.look()

    # -- observation -------------------------------------------------------------------------

    async def _beat(self) -> None:
        processes = await self._run(self._supervisor.processes)
        by_name = {f"{p.group}:{p.name}": p for p in processes}
        became_idle = False
        for instance in list(self._pool.instances.values()):
            try:
                became_idle |= await self._observe(instance, by_name.get(instance.name))
            except (SocketpoolError, OSError) as error:  # the others must not suffer from it
                extra = {"instance": instance.name, "error": str(error)}
                log.warning("supervision failed", extra=extra)
        for instance in self._pool.overdue(_now()):
            self._pool.apply(instance.port, InstanceEvent.OVERDUE, _now())
            log.error("instance failed", extra={"instance": instance.name, "exits": instance.exits})
        if became_idle:
            self._changed()

    async def _observe(self, instance: Instance, process: ProcessInfo | None) -> bool:
        """Let what supervisord says happen to the instance; True when it became idle."""
        port = instance.port
        pid = process.pid if process is not None and process.alive else 0
        if pid == self._gone.get(port):
            pid = 0  # what supervisord said was true before its exit was told to us
        known = self._pool.instances[port].pid
        if known and pid != known:
            self._lose(port)
        if pid and self._pool.instances[port].pid != pid:
            self._pool.saw(port, pid)
            if instance.state is InstanceState.LEASED:
                self._watch_exit(port, pid)
        match self._pool.instances[port].state:
            case InstanceState.STARTING | InstanceState.FAILED:
                ready = pid and await self._run(self._is_ready, instance, pid)
                if ready and self._pool.instances[port].pid == pid:  # it may have ended meanwhile
                    self._pool.apply(port, InstanceEvent.READY, _now())
                    self._watch_exit(port, pid)
                    return True
            case InstanceState.RECYCLING if process is not None:
                await self._restart(instance, process)
        return False

    def _is_ready(self, instance: Instance, pid: int) -> bool:
        """Looks at the kernel's tables; for the worker thread."""
        said = list(self._said_ready)
        if self._pool.services[instance.service].notifies and not any(
            speaks_for(speaker, pid) for speaker in said
        ):
            return False
        return listens(pid, instance.port)

    def _hear(self) -> None:
        self._said_ready.update(self._messages.receive())
        self.look()

    async def _restart(self, instance: Instance, process: ProcessInfo) -> None:
        self._unwatch_exit(instance.port)
        if process.at_rest:
            await self._run(self._supervisor.start, instance.name)
            self._pool.saw(instance.port, 0)
            self._pool.apply(instance.port, InstanceEvent.RESTARTED, _now())
        elif process.state != "STOPPING":
            await self._run(self._supervisor.stop, instance.name)

    def _watch_exit(self, port: int, pid: int) -> None:
        """Learn of the process's exit when it happens, not when supervisord gets to it."""
        self._unwatch_exit(port)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            self.look()
            return
        self._pidfds[port] = fd
        asyncio.get_running_loop().add_reader(fd, self._exited, port)

    def _unwatch_exit(self, port: int) -> None:
        fd = self._pidfds.pop(port, None)
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _exited(self, port: int) -> None:
        self._lose(port)
        self.look()

    def _lose(self, port: int) -> None:
        self._unwatch_exit(port)
        self._gone[port] = self._pool.instances[port].pid
        self._said_ready.discard(self._gone[port])
        instance = self._pool.apply(port, InstanceEvent.LOST, _now())
        log.info("process exited", extra={"instance": instance.name, "state": instance.state})

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _now() -> float:
    return asyncio.get_running_loop().time()
