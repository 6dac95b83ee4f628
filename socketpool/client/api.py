"""The pool server's API: one method for each request, and leases for the length of a block."""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload
from urllib.parse import quote

from socketpool.client.answers import (
    ClientLease,
    DrainProgress,
    InstanceStatus,
    LeasedService,
    LeaseHistory,
    LeaseStatus,
    PoolStatus,
    ReloadResult,
    ServiceDescription,
    parse_record,
)
from socketpool.client.dial import await_answer, dial_tcp
from socketpool.client.exchange import MAX_ANSWER_BYTES, Exchanges, Reply, no_pool_server
from socketpool.client.renewal import leased
from socketpool.client.retries import RetryBudget
from socketpool.defaults import WAIT_SECONDS
from socketpool.errorregistry import API_ERRORS, api_fallback
from socketpool.errors import (
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from socketpool.client.dial import Dial
    from socketpool.core.servicekinds import ServiceKind

R = TypeVar("R")

ASK_AGAIN = frozenset({429, 503})
"""The statuses whose ``Retry-After`` is obeyed: over a quota, and nothing to be had now."""


@dataclass(frozen=True, slots=True)
class _Renewed:
    expires_in: float


class PoolClient:
    """A client of one pool server; `socketpool.client.connect` makes one.

    Every method may raise PoolUnreachable, NotAuthorised or TimedOut.  A server that has answered
    before (or that is ``known`` to run) may be away for a few seconds, as in a restart: requests
    are repeated until it is back.  All times are in seconds.  Thread-safe: each thread has a
    connection of its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        *,
        known: bool = False,
        dial: Dial = dial_tcp,
    ) -> None:
        self.host = host
        self.port = port
        self.dial = dial
        """How the pool, and what it leases, is reached."""
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._seen = threading.Event()  # clones share it
        if known:
            self._seen.set()
        self._exchanges = Exchanges(host, port, dial)
        self._aborted = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def lease(
        self, service: str, /, *, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> AbstractContextManager[LeasedService]: ...
    @overload
    def lease(
        self,
        first: str,
        second: str,
        /,
        *more: str,
        ttl: float | None = None,
        wait: float = WAIT_SECONDS,
    ) -> AbstractContextManager[ClientLease]: ...
    def lease(
        self, *services: str, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> AbstractContextManager[Any]:
        """Lease services for the length of a ``with`` block.

            with pool.lease("redis") as redis:
                redis.host, redis.port, redis.url
            with pool.lease("redis", "web") as lease:
                lease["redis"].port, lease["web"].url

        One name gives that service, several names give the lease.  Otherwise as `hold`.
        """
        return self._lease(services, ttl=ttl, wait=wait)

    @contextmanager
    def hold(
        self,
        services: Sequence[str],
        *,
        ttl: float | None = None,
        wait: float = WAIT_SECONDS,
        lost: Callable[[], object] | None = None,
    ) -> Iterator[ClientLease]:
        """Lease services for the length of a ``with`` block; gives the lease.

        The block begins when every service answers at its port.  The lease is renewed three times
        in each time to live, and released at the end of the block, however that is left.

        When the lease ends during the block (it was released elsewhere, or reached the pool's
        maximum age), ``lost`` is called from another thread.  Without ``lost``, NotAuthorised is
        raised at the end of the block.  Raises what `acquire` raises.
        """
        ended = threading.Event()
        with leased(self, list(services), wait=wait, ttl=ttl, lost=lost or ended.set) as lease:
            for service in lease.services:
                await_answer(service.host, service.port, self.dial)
            yield lease
        if ended.is_set():
            raise lease_lost(lease.id)

    def acquire(
        self,
        services: list[str],
        *,
        ttl: float | None = None,
        wait: float = WAIT_SECONDS,
        key: str | None = None,
    ) -> ClientLease:
        """Lease one instance of each service, all or nothing; the caller renews and releases it.

        ``wait`` is how long to wait for services that are in use (at most 300), ``ttl`` the time
        to live (the pool's own by default).  A request whose reply was lost is repeated under the
        same key, so no lease is taken twice.  A ``key`` of the caller's own does that for calls.
        Raises NoCapacity, QuotaExceeded, ServiceUnknown, ServiceForbidden and UsageError.
        """
        body: dict[str, Any] = {"services": services, "wait": wait}
        body["key"] = key or secrets.token_hex(16)
        if ttl is not None:
            body["ttl"] = ttl
        answer = self._request("POST", "/v1/leases", body, budget=self._patience(wait))
        lease = self._shape(ClientLease, answer)
        if [leased.service for leased in lease.services] != services:
            raise no_pool_server(self.host, self.port)
        return lease

    def renew(self, lease_id: str) -> float:
        """Renew a lease; returns in how many seconds it now ends.  Raises NoSuchLease."""
        answer = self._request("POST", f"/v1/leases/{lease_id}/renew")
        return self._shape(_Renewed, answer).expires_in

    def release(self, lease_id: str) -> None:
        """End a lease.  Raises NoSuchLease."""
        budget = self._patience()
        try:
            self._request("DELETE", f"/v1/leases/{lease_id}", budget=budget)
        except NotAuthorised:
            if not budget.cuts:  # else it may have been the reply that was lost
                raise

    def leases(self) -> list[LeaseStatus]:
        """All live leases of this client; with the operator's token those of all clients."""
        return self._list(LeaseStatus, self._request("GET", "/v1/leases"))

    def history(self, reference: str) -> LeaseHistory:
        """What became of a request, by the id of its lease or the reference of its refusal.

        Raises NoSuchLease for one that the server doesn't know, or no longer remembers.
        """
        answer = self._request("GET", f"/v1/leases/{quote(reference, safe='')}/story")
        return self._shape(LeaseHistory, answer)

    def kinds(self) -> dict[str, ServiceKind | None]:
        """The names of the services, and the kind of client that each works with."""
        return {service.service: service.client for service in self.services()}

    def services(self) -> list[ServiceDescription]:
        """The catalogue, as far as this client may lease from it."""
        return self._list(ServiceDescription, self._request("GET", "/v1/services"))

    def instances(self) -> list[InstanceStatus]:
        """All instances by service and port; for a named client those of its leases."""
        return self._list(InstanceStatus, self._request("GET", "/v1/instances"))

    def status(self) -> PoolStatus:
        """What concerns the pool as a whole; raises OperatorOnly for a named client."""
        return self._shape(PoolStatus, self._request("GET", "/v1/pool"))

    def drain(self, target: str, *, undo: bool = False) -> DrainProgress:
        """Drain a service, an instance or (empty) the pool, or take that back.

        Called again, it tells how far the drain is.  Raises NoSuchTarget and OperatorOnly.
        """
        answer = self._request("POST", "/v1/drain", {"target": target, "undo": undo})
        return self._shape(DrainProgress, answer)

    def reload(self) -> ReloadResult:
        """Have the pool read its configuration again; raises ConfigError when it refuses that."""
        return self._shape(ReloadResult, self._request("POST", "/v1/reload"))

    def check_alive(self) -> None:
        """Raise PoolUnreachable unless a pool server answers; shows no token."""
        self._request("GET", "/livez")

    def close(self) -> None:
        """Close this thread's connection; the next request makes another."""
        self._exchanges.close()

    def clone(self) -> PoolClient:
        """Another client of the same server, which can be aborted by itself."""
        other = PoolClient(self.host, self.port, self._token, dial=self.dial)
        other._seen = self._seen
        return other

    def abort(self) -> None:
        """Cut off all requests from another thread, for good: they raise PoolUnreachable."""
        self._aborted.set()
        self._exchanges.abort()

    @contextmanager
    def _lease(
        self, services: Sequence[str], *, ttl: float | None, wait: float
    ) -> Iterator[LeasedService | ClientLease]:
        with self.hold(services, ttl=ttl, wait=wait) as lease:
            yield lease.services[0] if len(services) == 1 else lease

    def _patience(self, wait: float = 0.0) -> RetryBudget:
        return RetryBudget(wait, sleep=self._aborted.wait)

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        budget: RetryBudget | None = None,
    ) -> Any:
        """The answer; a ``wait`` in the body becomes what is left of the caller's at each try.

        Repeating is safe: creation carries a key, everything else says the same thing twice.
        """
        budget = budget or self._patience()
        while True:
            if body is not None and "wait" in body:
                body["wait"] = budget.wait
            payload = None if body is None else json.dumps(body).encode()
            try:
                reply = self._exchanges.send(method, path, payload, self._headers, wait=budget.wait)
            except PoolUnreachable:
                if self._aborted.is_set() or not (self._seen.is_set() and budget.after_cut()):
                    raise
                continue
            self._seen.set()
            retry_after = reply.retry_after if reply.status in ASK_AGAIN else None
            if retry_after is None or not budget.after_refusal(retry_after):
                return self._answer(reply)

    def _answer(self, reply: Reply) -> Any:
        if reply.status == 204:
            return None
        if len(reply.data) > MAX_ANSWER_BYTES:
            raise no_pool_server(self.host, self.port)
        try:
            answer = json.loads(reply.data)
        except (ValueError, RecursionError):
            raise no_pool_server(self.host, self.port) from None
        if 200 <= reply.status < 300:
            return answer
        details = answer if isinstance(answer, dict) else {}
        error = API_ERRORS.rebuild(
            details.get("code"),
            str(details.get("detail") or f"the pool server answered {reply.status}"),
            str(details.get("hint", "")),
            fallback=api_fallback(reply.status),
        )
        error.reference = str(details.get("reference", ""))
        if error.reference and isinstance(error, NoCapacity):
            command = f"socketpool explain {error.reference}"
            error.hint = f"{error.hint} (its history: {command})".lstrip()
        raise error

    def _list(self, shape: type[R], answer: Any) -> list[R]:
        if not isinstance(answer, list):
            raise no_pool_server(self.host, self.port)
        return [self._shape(shape, entry) for entry in answer]

    def _shape(self, shape: type[R], answer: Any) -> R:
        try:
            return parse_record(shape, answer)
        except ValueError:
            raise no_pool_server(self.host, self.port) from None


def lease_lost(lease_id: str) -> NotAuthorised:
    """The error for a lease that ended while it was in use."""
    return NotAuthorised(
        f"lease {lease_id} ended while it was in use",
        hint="was it released by another, asleep for longer than its time to live, or older than "
        "the pool's lease.max?",
    )
