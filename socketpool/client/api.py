"""The pool server's API as a library."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from socketpool.client.dial import dial_tcp
from socketpool.client.exchange import MAX_ANSWER_BYTES, Exchanges, Reply, no_pool_server
from socketpool.client.retries import RetryBudget
from socketpool.config.values import DEFAULT_URL, check_host, check_url
from socketpool.core.servicekinds import ServiceKind
from socketpool.defaults import MAX_DURATION_SECONDS, WAIT_SECONDS
from socketpool.errorregistry import API_ERRORS, api_fallback
from socketpool.errors import (
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
)

if TYPE_CHECKING:
    from socketpool.client.dial import Dial

A = TypeVar("A", bound=BaseModel)

ASK_AGAIN = frozenset({429, 503})
"""The statuses whose ``Retry-After`` is obeyed: over a quota, and nothing to be had now."""


def _known_kind(value: object) -> object:
    """A kind that only newer releases know is as none: this release can't run it."""
    return None if isinstance(value, str) and value not in set(ServiceKind) else value


_Kind = Annotated[ServiceKind | None, BeforeValidator(_known_kind)]


class _Answer(BaseModel):
    """What is read of an answer; whatever else a newer server says is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Leased(_Answer):
    """One service of a lease and where it is reached."""

    service: str
    host: Annotated[str, AfterValidator(check_host)]
    port: Annotated[int, Field(ge=1, le=65535)]
    instance: str
    client: _Kind = None
    url: Annotated[str, AfterValidator(check_url)] = DEFAULT_URL
    """Its form, with ``{host}`` and ``{port}``: whoever tunnels it puts others in their place."""


class LeaseHold(_Answer):
    """What it takes to work with a lease and to keep it alive."""

    id: str = Field(alias="lease")
    token: str
    ttl: Annotated[float, Field(ge=1, le=MAX_DURATION_SECONDS)]


class ClientLease(LeaseHold):
    """A granted lease."""

    services: tuple[Leased, ...]

    def service(self, name: str) -> Leased:
        """Where the named service is."""
        return next(s for s in self.services if s.service == name)


class CatalogueEntry(_Answer):
    """A service that the pool offers, and the kind of its client portion."""

    service: str
    client: _Kind = None


class Drained(_Answer):
    """How far a drain is: what is still leased, and whether all has come to rest."""

    leased: int
    stopped: bool


class Reloaded(_Answer):
    """The services that are not as they were before a reload."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class _Renewed(_Answer):
    expires_in: float


class PoolClient:
    """Talks to one pool server.  Every method may raise PoolUnreachable, NotAuthorised or TimedOut.

    A server that has answered before, or of which is ``known`` that it is there, may vanish for a
    few seconds and come back: requests wait for it.  Thread-safe: each thread has a connection of
    its own.
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
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._known = known
        self._exchanges = Exchanges(host, port, dial)

    def acquire(
        self, services: list[str], *, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> ClientLease:
        """Lease the services, waiting up to ``wait`` seconds; raises NoCapacity, UsageError.

        A reply that is lost is asked for again under the same key, so that no lease is taken
        twice.
        """
        body: dict[str, Any] = {"services": services, "wait": wait, "key": secrets.token_hex(16)}
        if ttl is not None:
            body["ttl"] = ttl
        answer = self._request("POST", "/v1/leases", body, budget=RetryBudget(wait))
        lease = self._shape(ClientLease, answer)
        if [leased.service for leased in lease.services] != services:
            raise no_pool_server(self.host, self.port)
        return lease

    def renew(self, lease_id: str) -> float:
        """Renew a lease; returns the seconds it now has."""
        answer = self._request("POST", f"/v1/leases/{lease_id}/renew")
        return self._shape(_Renewed, answer).expires_in

    def release(self, lease_id: str) -> None:
        """End a lease."""
        budget = RetryBudget()
        try:
            self._request("DELETE", f"/v1/leases/{lease_id}", budget=budget)
        except NotAuthorised:
            if not budget.cuts:  # else it may have been the reply that was lost
                raise

    def leases(self) -> list[dict[str, Any]]:
        """All live leases."""
        return list(self._request("GET", "/v1/leases"))

    def history(self, reference: str) -> dict[str, Any]:
        """What became of the request that led to a lease, or to a refusal with a reference."""
        return dict(self._request("GET", f"/v1/leases/{quote(reference, safe='')}/story"))

    def kinds(self) -> dict[str, ServiceKind | None]:
        """The services of the catalogue, and the kind of the client portion of each."""
        answer = self._request("GET", "/v1/services")
        entries = answer if isinstance(answer, list) else [answer]
        found = [self._shape(CatalogueEntry, entry) for entry in entries]
        return {entry.service: entry.client for entry in found}

    def services(self) -> list[dict[str, Any]]:
        """The catalogue, as the server tells it."""
        return list(self._request("GET", "/v1/services"))

    def instances(self) -> list[dict[str, Any]]:
        """All instances."""
        return list(self._request("GET", "/v1/instances"))

    def pool(self) -> dict[str, Any]:
        """What concerns the pool as a whole."""
        return dict(self._request("GET", "/v1/pool"))

    def drain(self, target: str, *, undo: bool = False) -> Drained:
        """Drain a service, an instance or (empty) the pool, or take that back.

        Asked again it tells how far that is.  Raises UsageError for a target that isn't there.
        """
        answer = self._request("POST", "/v1/drain", {"target": target, "undo": undo})
        return self._shape(Drained, answer)

    def reload(self) -> Reloaded:
        """Have the pool read its file again; raises ConfigError when it refuses the file."""
        return self._shape(Reloaded, self._request("POST", "/v1/reload"))

    def check_alive(self) -> None:
        """Raise PoolUnreachable unless a pool server answers; shows no token."""
        self._request("GET", "/livez")

    def close(self) -> None:
        """Close this thread's connection."""
        self._exchanges.close()

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
        budget = budget or RetryBudget()
        while True:
            if body is not None and "wait" in body:
                body["wait"] = budget.wait
            payload = None if body is None else json.dumps(body).encode()
            try:
                reply = self._exchanges.send(method, path, payload, self._headers, wait=budget.wait)
            except PoolUnreachable:
                if not (self._known and budget.after_cut()):
                    raise
                continue
            self._known = True
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

    def _shape(self, model: type[A], answer: Any) -> A:
        try:
            return model.model_validate(answer)
        except ValidationError:
            raise no_pool_server(self.host, self.port) from None
