"""What a round trip needs of a pool: `PoolClient` over the network, or one in the same process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from socketpool.defaults import WAIT_SECONDS

if TYPE_CHECKING:
    from socketpool.client.answers import ClientLease
    from socketpool.core.servicekinds import ServiceKind


class Leaser(Protocol):
    """Grants leases; see `PoolClient` for what the methods promise and raise."""

    host: str
    port: int

    def acquire(
        self, services: list[str], *, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> ClientLease: ...
    def renew(self, lease_id: str) -> float: ...
    def release(self, lease_id: str) -> None: ...
    def kinds(self) -> dict[str, ServiceKind | None]: ...
    def close(self) -> None: ...
