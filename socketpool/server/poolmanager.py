"""The pool server's whole state and its lifetime: recover, warm up, keep, close."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from socketpool.config.clients import token_hash
from socketpool.core.backoff import Backoff
from socketpool.core.permissions import OPERATOR, Client
from socketpool.core.pool import Pool
from socketpool.credentials.fence import Fence
from socketpool.errors import NoCapacity, SocketpoolError
from socketpool.server.instances.manager import InstanceManager
from socketpool.server.instances.reconcile import Reconciler
from socketpool.server.leases.groupcommit import GroupCommit
from socketpool.server.leases.leasemanager import LeaseManager
from socketpool.server.leases.recovery import empty_trash, live_leases, sweep, workspaces_on_disk
from socketpool.server.reload import ReloadedSettings, read_again
from socketpool.store.contract import Forget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from socketpool.config.settings import Settings
    from socketpool.config.statedir import StateDir
    from socketpool.core.records import Lease
    from socketpool.credentials.tokens import LeaseTokens
    from socketpool.store.contract import LeaseStore
    from socketpool.supervision.rpc import Supervisor

SIZING_INTERVAL_SECONDS = 1.0
"""Longest pause between two sizing passes (does each service have the instances it needs?)."""

MIN_SIZING_INTERVAL_SECONDS = 0.02
"""Shortest pause between two sizing passes, however many leases ask for one."""

EXPIRY_INTERVAL_SECONDS = 0.25
"""Pause between two searches for expired leases."""

log = logging.getLogger("socketpool.server")


class PoolManager:
    """Joins the core's tables with supervisord, the store and the clients."""

    def __init__(
        self,
        settings: Settings,
        state: StateDir,
        supervisor: Supervisor,
        store: LeaseStore,
        tokens: LeaseTokens,
        token: str,
    ) -> None:
        self.settings = settings
        self.pool = Pool(
            (service.plan() for service in settings.services.values()),
            settings.ports,
            max_age=settings.lease.max,
            new_id=_lease_ids().__next__,
            use_window=settings.instances.shrink_after,
            port_rest=settings.instances.port_rest,
        )
        self.ready = False
        self._state = state
        self._supervisor = supervisor
        self._store = store
        self._short = asyncio.Event()
        self._warmed_up = asyncio.Event()
        self._group_commit = GroupCommit(store, asyncio.get_running_loop())
        self._fence = Fence.create(state.fence)
        self._operator_hash = token_hash(token)
        self._clients: dict[str, Client] = {}
        self._know_clients(settings)
        self.leases = LeaseManager(
            self.pool,
            state,
            self._group_commit,
            self._fence,
            tokens,
            settings.lease,
            self._clients,
            wanted=self._on_wanted,
            refusal=self._refusal,
            returning=self._on_returning,
        )
        self.instances = InstanceManager(
            self.pool,
            state,
            supervisor,
            host=settings.services_host,
            backoff=_backoff(settings),
            changed=self._on_changed,
        )
        self.instances.configure(settings.services, _backoff(settings))
        self.reconciler = Reconciler(self.pool, state, self.instances.blocks)
        self._reloading = asyncio.Lock()
        self._shrink_at = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover what a run before left, then keep the pool until the block ends."""
        await self._recover()
        tasks = [
            asyncio.create_task(self.instances.run()),
            asyncio.create_task(self.instances.starter.run()),
            asyncio.create_task(self.instances.prober.run()),
            asyncio.create_task(self.reconciler.run()),
            asyncio.create_task(self._reclaim()),
            asyncio.create_task(self._keep_size()),
            asyncio.create_task(self._become_ready()),
        ]
        for task in tasks:
            task.add_done_callback(_die_if_failed)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            self.instances.close()
            await self._group_commit.close()
            self._fence.close()

    def client_of(self, token: str) -> str | None:
        """The name of the client whose token it is; None when it is nobody's."""
        return self._client_by_hash.get(token_hash(token))

    def client(self, name: str) -> Client:
        """What the named client may do."""
        return self._clients.get(name) or Client(OPERATOR)

    def count(self, service: str) -> dict[str, int]:
        """How many instances of a service are in which state."""
        states = (i.state for i in self.pool.instances.values() if i.service == service)
        return dict(Counter(map(str, states)))

    def seconds_left(self, lease: Lease) -> float:
        """How long the lease lives unless it is renewed."""
        return round(max(0.0, lease.expires - time.monotonic()), 3)

    async def _recover(self) -> None:
        processes = self._supervisor.processes()
        records, self.pool.generation = self._store.load()
        live = live_leases(records, processes, self._fence)
        kept = {record.id for record in live}
        self._store.commit([Forget(r.id) for r in records if r.id not in kept])
        leased = {grant.port for record in live for grant in record.grants}
        self.instances.adopt(processes, leased)
        self.leases.restore(live, time.monotonic())
        log.info("recovered", extra={"instances": len(self.pool.instances), "leases": len(live)})

    async def reload(self) -> ReloadedSettings:
        """Apply the pool's file as it is now; raises ConfigError, and then nothing has changed."""
        async with self._reloading:
            new = await asyncio.to_thread(read_again, self.settings, self._state)
            self._apply(new)
        told = {"added": new.added, "changed": new.changed, "removed": new.removed}
        log.info("reloaded", extra=told)
        return new

    def reload_soon(self) -> None:
        """For a signal: reload, and tell the log what came of it."""
        self._reload_task = asyncio.create_task(self._reload_and_log())

    async def _reload_and_log(self) -> None:
        try:
            await self.reload()
        except SocketpoolError as error:
            log.error("reload refused", extra={"error": error.message, "hint": error.hint})

    def _apply(self, new: ReloadedSettings) -> None:
        """Nothing in here can fail, so that a reload is whole."""
        settings = self.settings = new.settings
        self.pool.max_age = settings.lease.max
        self.pool.use_window = settings.instances.shrink_after
        self.pool.port_rest = settings.instances.port_rest
        self.pool.configure(service.plan() for service in settings.services.values())
        self.leases.limits = settings.lease
        self._know_clients(settings)
        self.instances.configure(settings.services, _backoff(settings), new.changed)
        self.leases.serve_waiting()
        self._short.set()

    def _know_clients(self, settings: Settings) -> None:
        """The clients of these settings are let in; of others, leases and requests may live on."""
        self._clients |= {name: client.named(name) for name, client in settings.clients.items()}
        self._client_by_hash = {client.token: name for name, client in settings.clients.items()}
        self._client_by_hash[self._operator_hash] = OPERATOR

    def _refusal(self, service: str) -> NoCapacity | None:
        """Why waiting for a service makes no sense, if it doesn't."""
        if service not in self.pool.services:
            return NoCapacity(f"the service {service} was taken out of the pool")
        if self.instances.drains.covers(service):
            return NoCapacity(
                f"{service} is drained: nobody gets it until that is taken back",
                hint="the pool's operator does: socketpool drain --undo",
            )
        if self.pool.all_failed(service):
            return NoCapacity(
                f"every instance of {service} has failed to start",
                hint="the pool's operator sees why: socketpool status",
            )
        return None

    def _on_wanted(self) -> None:
        self._short.set()
        if not self.pool.settled():
            self.instances.wake()  # something was given back that must be restarted

    def _on_returning(self, lease: Lease) -> None:
        self.instances.check_before_return(lease)

    def _on_changed(self) -> None:
        self.leases.serve_waiting()
        self._short.set()

    async def _reclaim(self) -> None:
        """Reclaim for ever what is not renewed in time, and delete what leases left behind."""
        while True:
            self.leases.expire()
            try:
                found = await asyncio.to_thread(workspaces_on_disk, self._state)
                sweep(self._state, found, self.pool.leases.__contains__)
                await asyncio.to_thread(empty_trash, self._state)
            except OSError as error:  # no descriptors or no disk, for a moment
                log.warning("reclaiming failed", extra={"error": str(error)})
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)

    async def _keep_size(self) -> None:
        """Grow at once for those who wait; ahead of demand, and shrink, on a slow beat."""
        blocks = self.instances.blocks
        while True:
            self._short.clear()
            offered = [n for n in self.pool.services if not self.instances.drains.covers(n)]
            try:
                await blocks.keep_warm(offered, self.leases.queue.demand())
                self.leases.serve_waiting()  # what starts now may cover those who wait
                self._warmed_up.set()
                if time.monotonic() >= self._shrink_at:
                    self._shrink_at = time.monotonic() + SIZING_INTERVAL_SECONDS
                    await blocks.shrink()
            except (SocketpoolError, OSError) as error:
                log.warning("growing failed", extra={"error": str(error)})
                await asyncio.sleep(SIZING_INTERVAL_SECONDS)
            await asyncio.sleep(MIN_SIZING_INTERVAL_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(SIZING_INTERVAL_SECONDS):
                    await self._short.wait()

    async def _become_ready(self) -> None:
        await self._warmed_up.wait()
        while not self.pool.settled():
            await asyncio.sleep(0.02)
        self.ready = True
        log.info("ready", extra={"services": {n: self.count(n) for n in self.pool.services}})


def _backoff(settings: Settings) -> Backoff:
    return Backoff(settings.instances.retry_first, settings.instances.retry_most)


def _die_if_failed(task: asyncio.Task[None]) -> None:
    """Exit if a task of the pool manager failed: without it the pool would only seem to work."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("pool manager failed", exc_info=task.exception())
        asyncio.get_running_loop().call_soon(_terminate)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _lease_ids() -> Iterator[str]:
    """Random ones; the system is asked for many at once, since each time costs more than an id."""
    while True:
        random = os.urandom(256 * 8)
        for start in range(0, len(random), 8):
            yield random[start : start + 8].hex()
