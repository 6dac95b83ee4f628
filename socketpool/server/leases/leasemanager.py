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

from socketpool.core.lifecycle import LeaseEvent, LeaseState
from socketpool.core.permissions import OPERATOR
from socketpool.core.pool import Exhausted, UnknownService
from socketpool.core.records import Lease
from socketpool.credentials.tokens import LeaseClaim
from socketpool.errors import (
    KeyReused,
    NoCapacity,
    NoSuchLease,
    QuotaExceeded,
    ServiceForbidden,
    ServiceUnknown,
    SocketpoolError,
    StoreError,
    UsageError,
)
from socketpool.logs import log_event
from socketpool.rsi.runner import workspace
from socketpool.server.leases.history import RequestHistories
from socketpool.server.leases.queue import WaitQueue
from socketpool.server.leases.requests import ClientGone, Pending, Request
from socketpool.server.supply import PoolSupply
from socketpool.store.contract import Forget, LeaseRecord, Save

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from socketpool.config.models import LeaseSettings
    from socketpool.config.statedir import StateDir
    from socketpool.core.permissions import Client
    from socketpool.core.pool import Pool
    from socketpool.credentials.fence import Fence
    from socketpool.credentials.tokens import LeaseTokens
    from socketpool.server.leases.groupcommit import GroupCommit
    from socketpool.server.leases.requests import Answered
    from socketpool.server.leases.terms import LeaseTerms

log = logging.getLogger("socketpool.leases")


class LeaseManager:
    """The leases of one pool.

    ``wanted`` is called when instances may have to be added; ``refusal`` says why waiting for a
    service makes no sense, if it doesn't.  ``returning`` is called with a lease just before its
    instances are given back.
    """

    def __init__(
        self,
        pool: Pool,
        state: StateDir,
        group_commit: GroupCommit,
        fence: Fence,
        tokens: LeaseTokens,
        limits: LeaseSettings,
        clients: Mapping[str, Client],
        *,
        wanted: Callable[[], None],
        refusal: Callable[[str], NoCapacity | None] = lambda _: None,
        returning: Callable[[Lease], None] = lambda _: None,
    ) -> None:
        self._supply = PoolSupply(pool, clients, refusal)
        self.queue = WaitQueue(self._supply)
        self.histories = RequestHistories()
        self._pool = pool
        self._loop = group_commit.loop
        self._workspaces, self._trash = state.workspaces, state.trash
        self._group_commit = group_commit
        self._fence = fence
        self._tokens = tokens
        self.limits = limits
        self._clients = clients
        self._wanted = wanted
        self._refusal = refusal
        self._returning = returning
        self._pending: dict[tuple[str, str], Pending] = {}  # by client and request key

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
                created=record.created,
            )
            self._pool.restore(lease)
            self.histories.restored(lease, record.created)
        self._fence.bar_all_but(grant.port for record in records for grant in record.grants)

    def submit(self, terms: LeaseTerms, answered: Answered) -> Request:
        """Have ``answered`` called with a lease, new or the one that the same request key already
        got, or with the refusal: now or later, unless the request is abandoned before.

        Refusals are :class:`ServiceUnknown`, :class:`UsageError`, :class:`ServiceForbidden`,
        :class:`NoCapacity`, :class:`QuotaExceeded`, :class:`KeyReused` or
        :class:`StoreError`.
        """
        request = Request(terms, answered)
        try:
            self._begin(request)
        except SocketpoolError as error:
            self._refuse(request, error)
        return request

    def abandon(self, request: Request) -> None:
        """The client does not wait for the answer any more, if it has not got it."""
        if request.pending is not None:
            self._withdraw(request)
            gone = ClientGone("the client did not wait for its lease")
            self.histories.refused(request.history, gone)

    async def acquire(
        self, terms: LeaseTerms, hung_up: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> Lease:
        """As `submit`, for those who can wait themselves; raises the refusal.

        ``hung_up`` returns when the client does not wait any more; that raises ClientGone.
        """
        answer: asyncio.Future[Lease | SocketpoolError] = self._loop.create_future()
        request = self.submit(terms, answer.set_result)
        awaited: set[asyncio.Future[Any]] = {answer}
        if hung_up is not None and not answer.done():
            awaited.add(asyncio.ensure_future(hung_up()))
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.abandon(request)
            for other in awaited - {answer}:
                other.cancel()
        if not answer.done():
            raise ClientGone("the client did not wait for its lease")
        lease = answer.result()
        if isinstance(lease, SocketpoolError):
            raise lease
        return lease

    def token(self, lease: Lease) -> str:
        """What the lease's holder shows to its services."""
        return self._tokens.sign(LeaseClaim(lease.id, lease.generation))

    def created(self, lease: Lease) -> float:
        """When the lease was granted, in wall-clock seconds since the epoch.

        Raises :class:`NoSuchLease` when it has ended.
        """
        return self.get(lease.id).created

    def live(self, client: str = OPERATOR) -> list[Lease]:
        """All live leases of the client; for the operator, everybody's."""
        return [
            lease
            for lease in self._pool.leases.values()
            if lease.state is LeaseState.ACTIVE and client in {OPERATOR, lease.client}
        ]

    def get(self, lease_id: str, client: str = OPERATOR) -> Lease:
        """A live lease of the client; raises :class:`NoSuchLease`."""
        lease = self._pool.leases.get(lease_id)
        if (
            lease is None
            or lease.state is not LeaseState.ACTIVE
            or client not in {OPERATOR, lease.client}
        ):
            raise NoSuchLease(
                "no such lease: it was released, ran out, or never was",
                hint="socketpool leases lists those that live",
            )
        return lease

    def renew(self, lease_id: str, client: str = OPERATOR) -> Lease:
        """Give the lease another time to live; raises :class:`NoSuchLease`."""
        self.get(lease_id, client)
        self.histories.renewed(lease_id)
        return self._pool.renew(lease_id, self._loop.time())

    def release(self, lease_id: str, client: str = OPERATOR) -> None:
        """End the lease; raises :class:`NoSuchLease`."""
        self._end(self.get(lease_id, client), LeaseEvent.RELEASE)

    def expire(self) -> None:
        """Reclaim what was not renewed in time."""
        for lease in self._pool.expired(self._loop.time()):
            self._end(lease, LeaseEvent.EXPIRE)

    def serve_waiting(self) -> None:
        """Instances became idle or failed: grant to those who wait, or send them away."""
        self.queue.serve()

    # -- granting ----------------------------------------------------------------------------

    def _permitted(self, terms: LeaseTerms) -> LeaseTerms:
        """The request as far as the catalogue, the client's rights and its quotas allow it."""
        self._check_possible(terms.services)
        ttl = min(terms.ttl, self.limits.max)
        if terms.client == OPERATOR:
            return terms._replace(ttl=ttl)
        client = self._clients[terms.client]
        for service in terms.services:
            if not client.may_lease(service):
                raise ServiceForbidden(
                    f"client {client.name!r} may not lease {service!r}",
                    hint="the pool's operator allows it under clients in the pool's file",
                )
        return terms._replace(ttl=ttl if client.ttl is None else min(ttl, client.ttl))

    def _check_possible(self, services: tuple[str, ...]) -> None:
        """Refuse what would wait in vain: the pool as it is configured can never grant it."""
        for service in services:
            if service not in self._pool.services:
                raise ServiceUnknown(
                    f"no service is named {service!r}",
                    hint="known services: " + ", ".join(sorted(self._pool.services)),
                )
            max_instances = self._pool.services[service].max_instances
            if services.count(service) > max_instances:
                raise UsageError(
                    f"there are never more than {max_instances} instances of {service}",
                    hint="lease fewer, or ask the operator to raise max",
                )
        if len(services) > len(self._pool.ports):
            raise UsageError(
                f"the pool has {len(self._pool.ports)} ports, "
                f"too few for {len(services)} instances",
                hint="lease fewer, or ask the operator for a larger range (pool.ports)",
            )

    def _quota_refusal(self, client: str) -> QuotaExceeded | None:
        """Why the client gets no further lease now, if that is because of its quota."""
        allowance = self._supply.allowance(client)
        if allowance is None or allowance > 0:
            return None
        return QuotaExceeded(
            f"client {client!r} has {self._pool.count_of(client)} leases, as many as it may have",
            hint="release one, wait longer, or ask the pool's operator for a larger quota",
        )

    def _begin(self, request: Request) -> None:
        terms = request.terms
        pending = self._pending.get((terms.client, terms.key))
        if pending is None:
            lease = self._pool.find(terms.client, terms.key)
            if lease is not None:
                _check_same(tuple(grant.service for grant in lease.grants), terms)
                request.answered(lease)
                return
            pending = self._new_pending(request)
        _check_same(pending.services, terms)
        request.pending = pending
        pending.requests.append(request)
        if pending.lease is None:
            request.timer = self._loop.call_later(terms.wait, self._time_out, request)

    def _new_pending(self, request: Request) -> Pending:
        terms = request.terms = self._permitted(request.terms)
        pending = Pending(terms, request.history, self._serve)
        if self.queue.must_wait(terms.services, terms.client) or not self._grant(pending):
            self._join(pending)
        if terms.key:
            self._pending[terms.client, terms.key] = pending
        return pending

    def _join(self, pending: Pending) -> None:
        client = pending.client
        for refused in filter(None, map(self._supply.why_closed, pending.services)):
            raise refused
        if client != OPERATOR:
            max_waiting = self._clients[client].waiting
            if max_waiting is not None and self.queue.count_of(client) >= max_waiting:
                raise QuotaExceeded(
                    f"client {client!r} has {max_waiting} requests waiting, as many as it may have",
                    hint="wait for them, or ask the pool's operator for a larger quota",
                )
        pending.history.ahead = self.queue.join(pending)
        self._wanted()

    def _serve(self, pending: Pending) -> bool:
        """Its turn has come; False when there is not enough for it yet."""
        try:
            return self._grant(pending)
        except SocketpoolError as error:
            self._forget(pending)
            # Not now: whoever is answered may ask for more, and the queue is being served.
            self._loop.call_soon(self._refuse_all, pending, error)
            return True

    def _grant(self, pending: Pending) -> bool:
        """Make it a lease in memory, on its way into the store; False when nothing is free.

        Raises NoCapacity when it makes no sense to wait for more.
        """
        terms = pending.terms
        try:
            lease = self._pool.grant(
                terms.services,
                ttl=terms.ttl,
                key=terms.key,
                client=terms.client,
                now=self._loop.time(),
            )
        except (Exhausted, UnknownService) as error:
            for refused in filter(None, map(self._refusal, terms.services)):
                raise refused from None
            if isinstance(error, UnknownService):
                raise
            return False
        pending.lease = lease
        for request in pending.requests:
            request.stop_timer()
        created = time.time()
        record = LeaseRecord(
            lease.id, lease.generation, lease.client, lease.key, lease.ttl, created, lease.grants
        )
        self._group_commit.write(Save(record), partial(self._established, pending, lease, created))
        return True

    def _established(
        self, pending: Pending, lease: Lease, created: float, error: StoreError | None
    ) -> None:
        self._forget(pending)
        if error is not None:
            self._end(lease, LeaseEvent.RELEASE)
            self._refuse_all(pending, error)
            return
        self._fence.admit((grant.port for grant in lease.grants), lease.generation)
        lease = pending.lease = self._pool.activate(lease.id, created)
        self.histories.granted(pending.history, lease)
        self._wanted()
        told = {
            "lease": lease.id,
            "instances": [grant.instance for grant in lease.grants],
            "ttl": lease.ttl,
            "client": lease.client,
        }
        log_event(log, "lease granted", told)
        if not pending.requests and pending.history.ahead is not None:
            # All who waited hung up. One that was served at once may yet ask again with its key.
            self._end(lease, LeaseEvent.RELEASE)
        for request in pending.requests:
            request.pending = None
            request.answered(lease)

    def _time_out(self, request: Request) -> None:
        self._withdraw(request)
        terms, history = request.terms, request.history
        self._refuse(
            request,
            self._quota_refusal(terms.client)
            or NoCapacity(
                f"nothing became free within {terms.wait:g} s for: {', '.join(terms.services)} "
                f"(requests waiting before this one: {history.ahead or 0})",
                hint="try again later, wait longer, or ask the operator to raise max",
            ),
        )

    def _withdraw(self, request: Request) -> None:
        """One less waits; with the last one, its place in the queue goes."""
        pending, request.pending = request.pending, None
        request.stop_timer()
        if pending is not None:
            pending.requests.remove(request)
            if not pending.requests and pending.lease is None:
                self._forget(pending)
                self.queue.leave(pending)
                self.queue.serve()  # it may have stood before somebody who wants less

    def _forget(self, pending: Pending) -> None:
        terms = pending.terms
        if self._pending.get((terms.client, terms.key)) is pending:
            del self._pending[terms.client, terms.key]

    def _refuse_all(self, pending: Pending, error: SocketpoolError) -> None:
        for request in pending.requests:
            self._refuse(request, error)

    def _refuse(self, request: Request, error: SocketpoolError) -> None:
        request.pending = None
        request.stop_timer()
        self.histories.refused(request.history, error)
        request.answered(error)

    # -- ending ------------------------------------------------------------------------------

    def _end(self, lease: Lease, event: LeaseEvent) -> None:
        self._fence.bar(grant.port for grant in lease.grants)
        try:
            workspace.discard(self._workspaces, self._trash, lease.id)
        except OSError as error:  # it is found again by who looks for leftovers
            log.warning("workspace kept", extra={"lease": lease.id, "error": error.strerror})
        self._returning(lease)
        self._pool.end(lease.id, event, self._loop.time())
        if lease.state is LeaseState.ACTIVE:
            self.histories.ended(lease.id, event)
            log_event(log, "lease ended", {"lease": lease.id, "how": event})
        self.queue.serve()
        self._wanted()
        self._group_commit.write_later(Forget(lease.id), partial(_log_failure, lease.id))


def _check_same(services: tuple[str, ...], terms: LeaseTerms) -> None:
    if services != terms.services:
        raise KeyReused(
            "the request key already belongs to a request for other services",
            hint="use a new key for a new request",
        )


def _log_failure(lease_id: str, error: StoreError | None) -> None:
    # The fence has closed, so nobody takes it for a lease after a restart either.
    if error is not None:
        log.error("store failed", extra={"lease": lease_id, "error": error.message})
