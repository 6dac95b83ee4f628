"""Who may use a pool: named clients, what each may lease, and how much at a time."""

from __future__ import annotations

from dataclasses import dataclass

OPERATOR = ""
"""The name of whoever shows the pool's own token: may do everything, without quotas."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client: the services it may lease (None: all) and its quotas (None: no bound).

    ``leases`` bounds its live leases, ``waiting`` its requests in the queue; ``ttl`` is the longest
    time to live in seconds that it is given.
    """

    name: str
    services: frozenset[str] | None = None
    leases: int | None = None
    waiting: int | None = None
    ttl: float | None = None

    def may_lease(self, service: str) -> bool:
        """Whether the service is for this client."""
        return self.services is None or service in self.services
