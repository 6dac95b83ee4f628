"""Keeps the leases: grants, renews, releases and reclaims them, durably.

Grants come from the core's tables in memory and are in the store before the client hears of them.
The workspace is made last and taken away first, so that a lease without a workspace is no lease,
whatever the store still says after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

from socketpool.core.lifecycle import LeaseEvent
from socketpool.core.pool import Exhausted
from socketpool.core.records import Lease
from socketpool.errors import NoCapacity, SocketpoolError, UsageError
from socketpool.rsi import workspace
from socketpool.rsi.tokens import LeaseClaim
from socketpool.server.queue import Waiter, WaitQueue
from socketpool.store.contract import Forget, LeaseRecord, Save, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.config.models import LeaseSettings
    from socketpool.config.statedir import StateDir
    from socketpool.core.pool import Pool
    from socketpool.rsi.tokens import LeaseTokens
    from socketpool.server.journal import Journal
    from socketpool.supervision.rpc import ProcessInfo

EXPIRY_BEAT = 0.25

log = logging.getLogger("socketpool.leases")


class NoSuchLease(SocketpoolError):
    """The lease is not, or no longer, alive."""

    exit_code = 5
    code = "no-such-lease"


class ServiceUnknown(SocketpoolError):
    """A service was asked for that the catalogue doesn't have."""

    exit_code = 2
    code = "unknown-service"


class KeyReused(SocketpoolError):
    """A request key came back with another request."""

    exit_code = 2
    code = "key-reused"


class Ask(NamedTuple):
    """A client's request for a lease: times in seconds, ``key`` empty for none."""

    services: tuple[str, ...]
    ttl: float
    key: str
    wait: float


class _Arrival:
    """A request under way that several may ask for under one key; ends when nobody does."""

    def __init__(self, task: asyncio.Task[Lease]) -> None:
        self.task = task
        self._sharers = 0

    async def share(self) -> Lease:
        self._sharers += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._sharers -= 1
            if not self._sharers and not self.task.done():
                self.task.cancel()


class LeaseKeeper:
    """The leases of one pool.  ``wanted`` is called when instances may have to be added."""

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        journal: Journal,
        tokens: LeaseTokens,
        limits: LeaseSettings,
        *,
        wanted: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._state = state
        self._journal = journal
        self._tokens = tokens
        self._limits = limits
        self._wanted = wanted
        self.queue = WaitQueue()
        self._granting: set[str] = set()  # in memory, but not yet durable
        # Lease -> wall-clock second, for display.  Who is not in here was told to nobody yet.
        self._created: dict[str, float] = {}
        self._arriving: dict[str, _Arrival] = {}  # by request key

    def restore(self, records: list[LeaseRecord], now: float) -> None:
        """Take back the leases that `live_leases` found; their clients get one time to live."""
        for record in records:
            age = max(0.0, time.time() - record.created)
            until = now + max(0.0, self._limits.max - age)
            self._pool.restore(
                Lease(
                    id=record.id,
                    generation=record.generation,
                    grants=record.grants,
                    ttl=record.ttl,
                    expires=min(now + record.ttl, until),
                    until=until,
                    key=record.key,
                )
            )
            self._created[record.id] = record.created

    async def acquire(self, ask: Ask) -> Lease:
        """A lease, new or the one that the same request key already got.

        Raises :class:`ServiceUnknown`, :class:`UsageError`, :class:`NoCapacity`,
        :class:`KeyReused` or :class:`~socketpool.store.contract.StoreError`.
        """
        for service in ask.services:
            if service not in self._pool.services:
                raise ServiceUnknown(
                    f"no service is named {service!r}",
                    hint="known services: " + ", ".join(sorted(self._pool.services)),
                )
            most = self._pool.services[service].most
            if ask.services.count(service) > most:  # it would wait in vain, and others behind it
                raise UsageError(
                    f"there are never more than {most} instances of {service}",
                    hint="lease fewer, or ask the operator to raise max",
                )
        if not ask.key:
            return await self._acquire(ask)
        arrival = self._arriving.get(ask.key)
        if arrival is None:
            arrival = self._arriving[ask.key] = _Arrival(asyncio.create_task(self._acquire(ask)))
            arrival.task.add_done_callback(lambda _: self._arriving.pop(ask.key, None))
        lease = await arrival.share()
        if tuple(grant.service for grant in lease.grants) != ask.services:
            raise KeyReused(
                "the request key already belongs to a lease of other services",
                hint="use a new key for a new request",
            )
        return lease

    def token(self, lease: Lease) -> str:
        """What the lease's holder shows to its services."""
        return self._tokens.sign(LeaseClaim(lease.id, lease.generation))

    def created(self, lease: Lease) -> float:
        """When the lease was granted, in wall-clock seconds since the epoch."""
        return self._created[lease.id]

    def live(self) -> list[Lease]:
        """All live leases."""
        return [lease for lease in self._pool.leases.values() if lease.id in self._created]

    def get(self, lease_id: str) -> Lease:
        """A live lease; raises :class:`NoSuchLease`."""
        lease = self._pool.leases.get(lease_id)
        if lease is None or lease_id not in self._created:
            raise NoSuchLease(
                "no such lease: it was released, ran out, or never was",
                hint="socketpool leases lists those that live",
            )
        return lease

    def renew(self, lease_id: str) -> Lease:
        """Give the lease another time to live; raises :class:`NoSuchLease`."""
        self.get(lease_id)
        return self._pool.renew(lease_id, _now())

    async def release(self, lease_id: str) -> None:
        """End the lease; raises :class:`NoSuchLease`."""
        await self._end(self.get(lease_id), LeaseEvent.RELEASE)

    async def keep(self) -> None:
        """Reclaim for ever what is not renewed in time, and delete what leases left behind."""
        while True:
            try:
                for lease in self._pool.expired(_now()):
                    if lease.id not in self._granting:
                        await self._end(lease, LeaseEvent.EXPIRE)
                await asyncio.to_thread(self._empty_trash)
            except OSError as error:  # no descriptors or no disk, for a moment
                log.warning("reclaiming failed", extra={"error": str(error)})
            await asyncio.sleep(EXPIRY_BEAT)

    def serve_waiting(self) -> None:
        """Instances became idle: grant to those who wait."""
        self.queue.serve()

    async def _acquire(self, ask: Ask) -> Lease:
        known = self._pool.find(ask.key)
        if known is not None:
            return known
        lease = self._grant_now(ask) or await self._wait(ask)
        self._granting.add(lease.id)
        try:
            created = time.time()
            record = LeaseRecord(
                lease.id, lease.generation, lease.key, lease.ttl, created, lease.grants
            )
            await self._journal.write(Save(record))
            ports = [grant.port for grant in lease.grants]
            workspace.create(self._state.workspaces, LeaseClaim(lease.id, lease.generation), ports)
            self._created[lease.id] = created
        except asyncio.CancelledError:  # nobody waits for it any more
            await self._end(lease, LeaseEvent.RELEASE)
            raise
        except (StoreError, OSError) as error:
            await self._end(lease, LeaseEvent.RELEASE)
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"no workspace could be made: {error.strerror}",
                hint="check that the state directory's disk is writable and has space",
            ) from error
        finally:
            self._granting.discard(lease.id)
        self._wanted()
        names = [grant.instance for grant in lease.grants]
        log.info("lease granted", extra={"lease": lease.id, "instances": names, "ttl": lease.ttl})
        return lease

    def _grant_now(self, ask: Ask) -> Lease | None:
        if self.queue.must_wait(ask.services):
            return None
        try:
            return self._grant(ask)
        except Exhausted:
            return None

    def _grant(self, ask: Ask) -> Lease:
        return self._pool.grant(
            ask.services, ttl=min(ask.ttl, self._limits.max), key=ask.key, now=_now()
        )

    async def _wait(self, ask: Ask) -> Lease:
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        waiter = Waiter(ask.services, lambda: self._grant(ask), future)
        ahead = self.queue.join(waiter)
        self._wanted()
        try:
            # Not wait_for: it could throw away a lease granted in the moment of its timeout.
            done, _ = await asyncio.wait({future}, timeout=ask.wait)
        except asyncio.CancelledError:
            if future.done():
                self._pool.end(future.result().id, LeaseEvent.RELEASE, _now())
                self.queue.serve()
            raise
        finally:
            self.queue.leave(waiter)
        if not done:
            raise self._no_capacity(ask, ahead)
        return future.result()

    def _no_capacity(self, ask: Ask, ahead: int) -> NoCapacity:
        for service in ask.services:
            if self._pool.all_failed(service):
                return NoCapacity(
                    f"every instance of {service} has failed to start",
                    hint="the pool's operator finds why in its logs (socketpool status)",
                )
        return NoCapacity(
            f"nothing became free within {ask.wait:g} s for: {', '.join(ask.services)} "
            f"(requests waiting before this one: {ahead})",
            hint="try again later, wait longer, or ask the operator to raise max",
        )

    async def _end(self, lease: Lease, event: LeaseEvent) -> None:
        if lease.id not in self._pool.leases:
            return
        workspace.discard(self._state.workspaces, self._state.trash, lease.id)
        self._pool.end(lease.id, event, _now())
        self._created.pop(lease.id, None)
        log.info("lease ended", extra={"lease": lease.id, "how": event})
        self.queue.serve()
        self._wanted()
        try:
            await self._journal.write(Forget(lease.id))
        except StoreError as error:
            # Without its workspace nobody takes it for a lease after a restart either.
            log.error("store failed", extra={"lease": lease.id, "error": error.message})

    def _empty_trash(self) -> None:
        for path in self._state.trash.iterdir():
            shutil.rmtree(path, ignore_errors=True)


def live_leases(
    records: list[LeaseRecord], processes: list[ProcessInfo], state: StateDir
) -> list[LeaseRecord]:
    """Those leases of the store that still are: with their workspace and all their instances.

    Everything else in the workspaces' folder goes to the trash.
    """
    names = {f"{p.group}:{p.name}" for p in processes}
    live = [
        record
        for record in records
        if workspace.Workspace(state.workspaces / record.id).alive
        and all(grant.instance in names for grant in record.grants)
    ]
    ids = {record.id for record in live}
    for path in state.workspaces.iterdir():
        if path.name not in ids:
            workspace.discard(state.workspaces, state.trash, path.name)
    return live


def _now() -> float:
    return asyncio.get_running_loop().time()
