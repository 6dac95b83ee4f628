"""The pool server's API as a library."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from socketpool.client.dial import Deadline, dial_tcp
from socketpool.config.fields import DEFAULT_URL, check_host, check_url
from socketpool.errors import (
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
    SocketpoolError,
    TimedOut,
    UsageError,
)

if TYPE_CHECKING:
    import socket

    from socketpool.client.dial import Dial

A = TypeVar("A", bound=BaseModel)

REQUEST_SECONDS = 15.0
MAX_ANSWER_BYTES = 16 << 20

_BY_CODE: dict[str, type[SocketpoolError]] = {
    "unknown-service": UsageError,
    "usage": UsageError,
    "key-reused": UsageError,
    "no-capacity": NoCapacity,
    "store-unavailable": NoCapacity,
    "not-authorised": NotAuthorised,
    "no-such-lease": NotAuthorised,
    "timed-out": TimedOut,
}


class _Answer(BaseModel):
    """What is read of an answer; whatever else a newer server says is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Leased(_Answer):
    """One service of a lease and where it is reached."""

    service: str
    host: Annotated[str, AfterValidator(check_host)]
    port: Annotated[int, Field(ge=1, le=65535)]
    instance: str
    client: str | None = None
    url: Annotated[str, AfterValidator(check_url)] = DEFAULT_URL
    """Its form, with ``{host}`` and ``{port}``: whoever tunnels it puts others in their place."""


class ClientLease(_Answer):
    """A granted lease."""

    id: str = Field(alias="lease")
    token: str
    ttl: Annotated[float, Field(ge=1, le=30 * 86400)]
    services: tuple[Leased, ...]

    def service(self, name: str) -> Leased:
        """Where the named service is."""
        return next(s for s in self.services if s.service == name)


class CatalogueEntry(_Answer):
    """A service that the pool offers, and the kind of its client portion."""

    service: str
    client: str | None = None


class _Renewed(_Answer):
    expires_in: float


class PoolClient:
    """Talks to one pool server.  Every method may raise PoolUnreachable, NotAuthorised or TimedOut.

    Thread-safe: each thread has a connection of its own.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        *,
        dial: Dial = dial_tcp,
    ) -> None:
        self.host = host
        self.port = port
        self._token = token
        self.dial = dial
        """How the pool, and what it leases, is reached."""
        self._local = threading.local()

    def acquire(
        self, services: list[str], *, ttl: float | None = None, wait: float = 30.0
    ) -> ClientLease:
        """Lease the services, waiting up to ``wait`` seconds; raises NoCapacity, UsageError.

        A reply that is lost is asked for again under the same key, so that no lease is taken
        twice.
        """
        body: dict[str, Any] = {"services": services, "wait": wait, "key": secrets.token_hex(16)}
        if ttl is not None:
            body["ttl"] = ttl
        answer = self._request("POST", "/v1/leases", body, timeout=wait + REQUEST_SECONDS)
        lease = self._shape(ClientLease, answer)
        if [leased.service for leased in lease.services] != services:
            raise self._no_pool_server()
        return lease

    def renew(self, lease_id: str) -> float:
        """Renew a lease; returns the seconds it now has."""
        answer = self._request("POST", f"/v1/leases/{lease_id}/renew")
        return self._shape(_Renewed, answer).expires_in

    def release(self, lease_id: str) -> None:
        """End a lease."""
        self._request("DELETE", f"/v1/leases/{lease_id}")

    def leases(self) -> list[dict[str, Any]]:
        """All live leases."""
        return list(self._request("GET", "/v1/leases"))

    def kinds(self) -> dict[str, str | None]:
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

    def check_alive(self) -> None:
        """Raise PoolUnreachable unless a pool server answers; shows no token."""
        self._request("GET", "/livez")

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _request(
        self, method: str, path: str, body: Any = None, *, timeout: float = REQUEST_SECONDS
    ) -> Any:
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        # The second try is for a kept connection that the server has closed meanwhile.  Repeating
        # is safe: creation carries a key, renewal and release say the same thing twice.
        for last_try in (False, True):
            try:
                connection = self._connection()
                connection.sock.settimeout(timeout)
                deadline = Deadline(connection.sock, timeout + REQUEST_SECONDS)
                try:
                    connection.request(method, path, payload, headers)
                    response = connection.getresponse()
                    data = response.read(MAX_ANSWER_BYTES + 1)
                finally:
                    deadline.cancel()
                break
            except TimeoutError:
                self.close()
                raise TimedOut(
                    f"the pool server at {self.host} port {self.port} did not answer in time"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last_try:
                    raise self._no_pool_server(f" ({type(error).__name__})") from None
        if len(data) > MAX_ANSWER_BYTES:
            self.close()
            raise self._no_pool_server()
        if response.status == 204:
            return None
        return self._answer(response.status, data)

    def _answer(self, status: int, data: bytes) -> Any:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise self._no_pool_server() from None
        if 200 <= status < 300:
            return answer
        details = answer if isinstance(answer, dict) else {}
        cls = _BY_CODE.get(str(details.get("code")), SocketpoolError)
        message = str(details.get("detail") or f"the pool server answered {status}")
        raise cls(message, hint=str(details.get("hint", "")))

    def _shape(self, model: type[A], answer: Any) -> A:
        try:
            return model.model_validate(answer)
        except ValidationError:
            raise self._no_pool_server() from None

    def _no_pool_server(self, why: str = "") -> PoolUnreachable:
        return PoolUnreachable(
            f"{self.host} port {self.port} does not answer as a pool server{why}",
            hint="check the address; is it socketpool_server's?",
        )

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _DialledConnection(self.host, self.port, self.dial)
            connection.connect()
            self._local.connection = connection
        elif connection.sock is None:
            connection.connect()
        return connection


class _DialledConnection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, dial: Dial) -> None:
        super().__init__(host, port)
        self._dial = dial

    def connect(self) -> None:
        # It takes whatever sends, receives and makes a file, as streams of a tunnel do.
        self.sock = cast("socket.socket", self._dial(self.host, self.port))
