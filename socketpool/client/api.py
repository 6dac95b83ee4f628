"""The pool server's API as a library."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from socketpool.client.dial import dial_tcp
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
    from collections.abc import Callable

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


@dataclass(frozen=True, slots=True)
class Leased:
    """One service of a lease and where it is reached."""

    service: str
    host: str
    port: int
    instance: str
    client: str | None


@dataclass(frozen=True, slots=True)
class ClientLease:
    """A granted lease."""

    id: str
    token: str
    ttl: float
    services: tuple[Leased, ...]

    def service(self, name: str) -> Leased:
        """Where the named service is."""
        return next(s for s in self.services if s.service == name)


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
        dial: Callable[[str, int], socket.socket] = dial_tcp,
    ) -> None:
        self.host = host
        self.port = port
        self._token = token
        self._dial = dial
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
        return ClientLease(
            id=answer["lease"],
            token=answer["token"],
            ttl=answer["ttl"],
            services=tuple(Leased(**service) for service in answer["services"]),
        )

    def renew(self, lease_id: str) -> float:
        """Renew a lease; returns the seconds it now has."""
        return float(self._request("POST", f"/v1/leases/{lease_id}/renew")["expires_in"])

    def release(self, lease_id: str) -> None:
        """End a lease."""
        self._request("DELETE", f"/v1/leases/{lease_id}")

    def leases(self) -> list[dict[str, Any]]:
        """All live leases."""
        return list(self._request("GET", "/v1/leases"))

    def services(self) -> list[dict[str, Any]]:
        """The catalogue."""
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
                connection.request(method, path, payload, headers)
                response = connection.getresponse()
                data = response.read(MAX_ANSWER_BYTES + 1)
                break
            except TimeoutError:
                self.close()
                raise TimedOut(
                    f"the pool server at {self.host} port {self.port} did not answer in time"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last_try:
                    raise PoolUnreachable(
                        f"{self.host} port {self.port} does not answer as a pool server "
                        f"({type(error).__name__})",
                        hint="check the address; is it socketpool_server's?",
                    ) from None
        if len(data) > MAX_ANSWER_BYTES:
            self.close()
            raise PoolUnreachable(f"{self.host} port {self.port} does not answer as a pool server")
        if response.status == 204:
            return None
        return self._answer(response.status, data)

    def _answer(self, status: int, data: bytes) -> Any:
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise PoolUnreachable(
                f"{self.host} port {self.port} does not answer as a pool server",
                hint="check the address; is it socketpool_server's?",
            ) from None
        if 200 <= status < 300:
            return answer
        details = answer if isinstance(answer, dict) else {}
        cls = _BY_CODE.get(str(details.get("code")), SocketpoolError)
        message = str(details.get("detail") or f"the pool server answered {status}")
        raise cls(message, hint=str(details.get("hint", "")))

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _DialledConnection(self.host, self.port, self._dial)
            connection.connect()
            self._local.connection = connection
        elif connection.sock is None:
            connection.connect()
        return connection


class _DialledConnection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, dial: Callable[[str, int], socket.socket]) -> None:
        super().__init__(host, port)
        self._dial = dial

    def connect(self) -> None:
        self.sock = self._dial(self.host, self.port)
