"""What clients ask of the leases."""

from __future__ import annotations

from typing import NamedTuple

from socketpool.core.permissions import OPERATOR


class LeaseTerms(NamedTuple):
    """A client's request for a lease: times in seconds, ``key`` empty for none."""

    services: tuple[str, ...]
    ttl: float
    key: str
    wait: float
    client: str = OPERATOR
