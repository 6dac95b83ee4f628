"""What clients ask of the leases, and the refusals they may get."""

from __future__ import annotations

from typing import NamedTuple

from socketpool.core.permissions import OPERATOR
from socketpool.errors import NoCapacity, NotAuthorised, SocketpoolError


class Ask(NamedTuple):
    """A client's request for a lease: times in seconds, ``key`` empty for none."""

    services: tuple[str, ...]
    ttl: float
    key: str
    wait: float
    client: str = OPERATOR


class NoSuchLease(SocketpoolError):
    """The lease is not, or no longer, alive, or it is another client's."""

    exit_code = 5
    code = "no-such-lease"


class ServiceUnknown(SocketpoolError):
    """A service was asked for that the catalogue doesn't have."""

    exit_code = 2
    code = "unknown-service"


class ServiceForbidden(NotAuthorised):
    """The client may not lease this service."""

    code = "service-forbidden"


class QuotaExceeded(NoCapacity):
    """The client has as much as it may have."""

    code = "quota-exceeded"


class KeyReused(SocketpoolError):
    """A request key came back with another request."""

    exit_code = 2
    code = "key-reused"
