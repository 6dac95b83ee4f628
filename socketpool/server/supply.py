"""What the queue asks about the pool: counts of instances, and what clients may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.core.permissions import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from socketpool.core.permissions import Client
    from socketpool.core.pool import Pool
    from socketpool.errors import NoCapacity


class PoolSupply:
    """The `Supply` of a real pool; ``refusal`` says why waiting for a service makes no sense."""

    def __init__(
        self,
        pool: Pool,
        clients: Mapping[str, Client],
        refusal: Callable[[str], NoCapacity | None],
    ) -> None:
        self._pool = pool
        self._clients = clients
        self._refusal = refusal
        self.idle = pool.idle_count
        self.starting = pool.starting_count
        self.reach = pool.reach

    def closed(self, service: str) -> bool:
        """Whether none is idle, and waiting makes no sense."""
        return self.why_closed(service) is not None

    def why_closed(self, service: str) -> NoCapacity | None:
        """The refusal for those who would wait for the service, if there is one."""
        return None if self._pool.idle_count(service) else self._refusal(service)

    def allowance(self, client: str) -> int | None:
        """How many more leases the client may have; None for no bound."""
        if client == OPERATOR:
            return None
        max_leases = self._clients[client].leases
        return None if max_leases is None else max_leases - self._pool.count_of(client)
