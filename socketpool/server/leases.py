"""Keeps the leases: grants, renews, releases and reclaims them, durably.

Grants come from the core's tables in memory and are in the store before the client hears of them.
The fence opens last and closes first, so that a lease that the fence doesn't admit is no lease,
whatever the store still says after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from socketpool.core.clients import OPERATOR
from socketpool.core.lifecycle import LeaseEvent
from socketpool.core.pool import Exhausted, UnknownService
from socketpool.core.records import Lease
from socketpool.errors import NoCapacity, SocketpoolError, UsageError
from socketpool.logs import log_event
from socketpool.rsi import workspace
from socketpool.rsi.tokens import LeaseClaim
from socketpool.server.asking import (
    Ask,
    KeyReused,
    NoSuchLease,
    QuotaExceeded,
    ServiceForbidden,
    ServiceUnknown,
)
from socketpool.server.queue import Waiter, WaitQueue
from socketpool.server.stories import Stories, Story
from socketpool.store.contract import Forget, LeaseRecord, Save, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from socketpool.config.models import LeaseSettings
    from socketpool.config.statedir import StateDir
    from socketpool.core.clients import Client
    from socketpool.core.pool import Pool
    from socketpool.rsi.fence import Fence
    from socketpool.rsi.tokens import LeaseTokens
    from socketpool.server.journal import Journal

SHORT_WAIT = 0.05
"""Seconds that a request may wait before it is watched whether its client does."""

log = logging.getLogger("socketpool.leases")


class ClientGone(SocketpoolError):
    """The client hung up; nobody reads this answer."""

    code = "client-gone"


class _Wait(Waiter):
    """A request in the queue that several may ask for under one key; ends when nobody does."""

    sharers = 0


class LeaseKeeper:
    """The leases of one pool.

    ``wanted`` is called when instances may have to be added; ``refusal`` says why waiting for a
    service makes no sense, if it doesn't.  ``returning`` is called with a lease just before its
    instances are given back.
    """

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        journal: Journal,
        fence: Fence,
        tokens: LeaseTokens,
        limits: LeaseSettings,
        clients: Mapping[str, Client],
        *,
        wanted: Callable[[], None],
        refusal: Callable[[str], NoCapacity | None] = lambda _: None,
        returning: Callable[[Lease], None] = lambda _: None,
    ) -> None:
        self.queue = WaitQueue()
        self.stories = Stories()
        self._pool = pool
        self._loop = journal.loop
        self._workspaces, self._trash = state.workspaces, state.trash
        self._journal = journal
        self._fence = fence
        self._tokens = tokens
        self.limits = limits
        self._clients = clients
        self._wanted = wanted
        self._refusal = refusal
        self._returning = returning
        self._establishing: dict[str, asyncio.Future[Lease]] = {}  # granted, but not yet durable
        # Lease -> wall-clock second, for display.  Who is not in here was told to nobody yet.
        self._created: dict[str, float] = {}
        self._waits: dict[tuple[str, str], _Wait] = {}  # by client and request key

    def restore(self, records: list[LeaseRecord], now: float) -> None:
        """Take back the leases that were found alive; their clients get one time to live."""
        for record in records:
            age = max(0.0, time.time() - record.created)
            until = now + max(0.0, self.limits.max - age)
            lease = Lease(
                id=record.id,
                generation=record.generation,
                grants=record.grants,
                ttl=record.ttl,
                expires=min(now + record.ttl, until),
                until=until,
                key=record.key,
                client=record.client,
            )
            self._pool.restore(lease)
            self._created[record.id] = record.created
            self.stories.restored(lease, record.created)
        self._fence.bar_all_but(grant.port for record in records for grant in record.grants)

    async def acquire(
        self, ask: Ask, hung_up: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Lease:
        """A lease, new or the one that the same request key already got.

        ``hung_up`` returns when the client does not wait any more.  Raises
        :class:`ServiceUnknown`, :class:`UsageError`, :class:`ServiceForbidden`,
        :class:`NoCapacity`, :class:`QuotaExceeded`, :class:`KeyReused`, :class:`ClientGone` or
        :class:`~socketpool.store.contract.StoreError`.
        """
        story = Story(ask)
        try:
            lease = self._pool.find(ask.client, ask.key)
            if lease is None:
                ask = self._permitted(ask)
                lease = self._grant_now(ask, story) or await self._wait(ask, story, hung_up)
            _check_same(tuple(grant.service for grant in lease.grants), ask)
            await self._durable(lease)
        except SocketpoolError as error:
            self.stories.refused(story, error)
            raise
        return lease

    def grant_at_once(self, ask: Ask, story: Story) -> asyncio.Future[Lease] | None:
        """A new lease, once it is durable, if there is nothing to wait for and nothing to refuse.

        None says that nothing has happened, and that `acquire` knows what to do.  The future may
        hold a :class:`~socketpool.store.contract.StoreError`.
        """
        if self._pool.find(ask.client, ask.key) is not None:
            return None
        try:
            lease = self._grant_now(self._permitted(ask), story)
        except SocketpoolError:
            return None
        return None if lease is None else self._establishing[lease.id]

    def token(self, lease: Lease) -> str:
        """What the lease's holder shows to its services."""
        return self._tokens.sign(LeaseClaim(lease.id, lease.generation))

    def created(self, lease: Lease) -> float:
        """When the lease was granted, in wall-clock seconds since the epoch.

        Raises :class:`NoSuchLease` when it has ended.
        """
        try:
            return self._created[lease.id]
        except KeyError:
            raise _no_such_lease() from None

    def live(self, client: str = OPERATOR) -> list[Lease]:
        """All live leases of the client; for the operator, everybody's."""
        return [
            lease
            for lease in self._pool.leases.values()
            if lease.id in self._created and client in {OPERATOR, lease.client}
        ]

    def get(self, lease_id: str, client: str = OPERATOR) -> Lease:
        """A live lease of the client; raises :class:`NoSuchLease`."""
        lease = self._pool.leases.get(lease_id)
        if lease is None or lease_id not in self._created or client not in {OPERATOR, lease.client}:
            raise _no_such_lease()
        return lease

    def renew(self, lease_id: str, client: str = OPERATOR) -> Lease:
        """Give the lease another time to live; raises :class:`NoSuchLease`."""
        self.get(lease_id, client)
        self.stories.renewed(lease_id)
        return self._pool.renew(lease_id, self._loop.time())

    def release(self, lease_id: str, client: str = OPERATOR) -> None:
        """End the lease; raises :class:`NoSuchLease`."""
        self._end(self.get(lease_id, client), LeaseEvent.RELEASE)

    def expire(self) -> None:
        """Reclaim what was not renewed in time."""
        for lease in self._pool.expired(self._loop.time()):
            if lease.id not in self._establishing:
                self._end(lease, LeaseEvent.EXPIRE)

    def serve_waiting(self) -> None:
        """Instances became idle or failed: grant to those who wait, or send them away."""
        self.queue.serve()

    # -- granting ----------------------------------------------------------------------------

    def _permitted(self, ask: Ask) -> Ask:
        """The request as far as the catalogue, the client's rights and its quotas allow it."""
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
        ttl = min(ask.ttl, self.limits.max)
        if ask.client == OPERATOR:
            return ask._replace(ttl=ttl)
        client = self._clients[ask.client]
        for service in ask.services:
            if not client.may_lease(service):
                raise ServiceForbidden(
                    f"client {client.name!r} may not lease {service!r}",
                    hint="the pool's operator allows it under clients in the pool's file",
                )
        self._check_quota(client)
        return ask._replace(ttl=ttl if client.ttl is None else min(ttl, client.ttl))

    def _check_quota(self, client: Client) -> None:
        if client.leases is not None and self._pool.count_of(client.name) >= client.leases:
            raise QuotaExceeded(
                f"client {client.name!r} has {client.leases} leases, as many as it may have",
                hint="release one, or ask the pool's operator for a larger quota",
            )

    def _grant_now(self, ask: Ask, story: Story) -> Lease | None:
        if (ask.client, ask.key) in self._waits or self.queue.must_wait(ask.services):
            return None
        try:
            return self._grant(ask, story)
        except Exhausted:
            return None

    def _grant(self, ask: Ask, story: Story) -> Lease:
        """A lease in memory, on its way into the store.

        Raises Exhausted, NoCapacity when it makes no sense to wait for more, or QuotaExceeded.
        """
        if ask.client != OPERATOR:
            self._check_quota(self._clients[ask.client])
        try:
            lease = self._pool.grant(
                ask.services, ttl=ask.ttl, key=ask.key, client=ask.client, now=self._loop.time()
            )
        except (Exhausted, UnknownService):
            for refused in filter(None, map(self._refusal, ask.services)):
                raise refused from None
            raise
        record = LeaseRecord(
            lease.id,
            lease.generation,
            lease.client,
            lease.key,
            lease.ttl,
            time.time(),
            lease.grants,
        )
        self._establishing[lease.id] = self._loop.create_future()
        stored = self._journal.write(Save(record))
        stored.add_done_callback(partial(self._established, lease, record.created, story))
        return lease

    def _established(
        self, lease: Lease, created: float, story: Story, stored: asyncio.Future[None]
    ) -> None:
        established = self._establishing.pop(lease.id)
        error = stored.exception()
        if error is not None:
            self._end(lease, LeaseEvent.RELEASE)
            established.set_exception(error)
            established.exception()  # whether or not anybody waits for it
            return
        self._fence.admit((grant.port for grant in lease.grants), lease.generation)
        self._created[lease.id] = created
        self.stories.granted(story, lease)
        self._wanted()
        told = {
            "lease": lease.id,
            "instances": [grant.instance for grant in lease.grants],
            "ttl": lease.ttl,
            "client": lease.client,
        }
        log_event(log, "lease granted", told)
        established.set_result(lease)

    async def _wait(
        self,
        ask: Ask,
        story: Story,
        hung_up: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> Lease:
        waiting = self._waits.get((ask.client, ask.key)) or self._join(ask, story)
        _check_same(waiting.services, ask)
        waiting.sharers += 1
        gone: asyncio.Future[None] | None = None
        abandoned = True
        try:
            await asyncio.wait({waiting.future}, timeout=min(ask.wait, SHORT_WAIT))
            if not waiting.future.done() and ask.wait > SHORT_WAIT:
                awaited: set[asyncio.Future[Any]] = {waiting.future}
                if hung_up is not None:
                    gone = asyncio.ensure_future(hung_up())
                    awaited.add(gone)
                remaining = ask.wait - SHORT_WAIT
                await asyncio.wait(awaited, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            if waiting.future.done():
                await self._durable(waiting.future.result())
            abandoned = gone is not None and gone.done()
        finally:
            waiting.sharers -= 1
            if gone is not None:
                gone.cancel()
            if waiting.future.done() or not waiting.sharers:
                self.queue.leave(waiting)
                self._waits.pop((ask.client, ask.key), None)
                self.queue.serve()  # it may have stood before somebody who wants less
            if abandoned and not waiting.sharers:
                self._give_back(waiting.future)
        if abandoned:
            raise ClientGone("the client did not wait for its lease")
        if not waiting.future.done():
            raise self._no_capacity(ask, story)
        return waiting.future.result()

    def _give_back(self, granted: asyncio.Future[Lease]) -> None:
        """End the lease of a client that hung up while it was granted, if it was."""
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            lease = granted.result()
            if lease.id in self._created:
                self._end(lease, LeaseEvent.RELEASE)

    async def _durable(self, lease: Lease) -> None:
        """Return when the lease is in the store; raises StoreError when it can't be."""
        establishing = self._establishing.get(lease.id)
        if establishing is not None:
            await asyncio.shield(establishing)

    def _join(self, ask: Ask, story: Story) -> _Wait:
        if ask.client != OPERATOR:
            most = self._clients[ask.client].waiting
            if most is not None and self.queue.count_of(ask.client) >= most:
                raise QuotaExceeded(
                    f"client {ask.client!r} has {most} requests waiting, as many as it may have",
                    hint="wait for them, or ask the pool's operator for a larger quota",
                )
        waiting = _Wait(
            ask.services,
            ask.client,
            partial(self._grant, ask, story),
            self._loop.create_future(),
        )
        story.ahead = self.queue.join(waiting)
        if ask.key:
            self._waits[ask.client, ask.key] = waiting
        self._wanted()
        return waiting

    def _no_capacity(self, ask: Ask, story: Story) -> NoCapacity:
        return NoCapacity(
            f"nothing became free within {ask.wait:g} s for: {', '.join(ask.services)} "
            f"(requests waiting before this one: {story.ahead or 0})",
            hint="try again later, wait longer, or ask the operator to raise max",
        )

    # -- ending ------------------------------------------------------------------------------

    def _end(self, lease: Lease, event: LeaseEvent) -> None:
        self._fence.bar(grant.port for grant in lease.grants)
        try:
            workspace.discard(self._workspaces, self._trash, lease.id)
        except OSError as error:  # it is found again by who looks for leftovers
            log.warning("workspace kept", extra={"lease": lease.id, "error": error.strerror})
        self._returning(lease)
        self._pool.end(lease.id, event, self._loop.time())
        if self._created.pop(lease.id, None) is not None:
            self.stories.ended(lease.id, event)
            log_event(log, "lease ended", {"lease": lease.id, "how": event})
        self.queue.serve()
        self._wanted()
        forgotten = self._journal.write_later(Forget(lease.id))
        forgotten.add_done_callback(partial(_log_failure, lease.id))


def _no_such_lease() -> NoSuchLease:
    return NoSuchLease(
        "no such lease: it was released, ran out, or never was",
        hint="socketpool leases lists those that live",
    )


def _check_same(services: tuple[str, ...], ask: Ask) -> None:
    if services != ask.services:
        raise KeyReused(
            "the request key already belongs to a request for other services",
            hint="use a new key for a new request",
        )


def _log_failure(lease_id: str, stored: asyncio.Future[None]) -> None:
    # The fence has closed, so nobody takes it for a lease after a restart either.
    if not stored.cancelled() and isinstance(error := stored.exception(), StoreError):
        log.error("store failed", extra={"lease": lease_id, "error": error.message})
