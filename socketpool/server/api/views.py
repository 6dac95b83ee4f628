"""What the API shows of leases and of the histories of requests."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from socketpool.config.values import DEFAULT_URL, EVERYWHERE
from socketpool.core.permissions import OPERATOR
from socketpool.errors import NoSuchLease
from socketpool.server.api.schema import RequestHistoryView

if TYPE_CHECKING:
    from socketpool.core.records import Grant, Lease
    from socketpool.server.leases.history import RequestHistory
    from socketpool.server.poolmanager import PoolManager


def lease_facts(manager: PoolManager, lease: Lease, host: str) -> dict[str, Any]:
    """The fields of a `LeaseView`, as plain as JSON has them."""
    return {
        "lease": lease.id,
        "ttl": lease.ttl,
        "expires_in": manager.seconds_left(lease),
        "created": manager.leases.created(lease),
        "services": [_leased(manager, grant, host) for grant in lease.grants],
    }


def _leased(manager: PoolManager, grant: Grant, host: str) -> dict[str, Any]:
    known = manager.settings.services.get(grant.service)  # a reload may have taken it away
    return {
        "service": grant.service,
        "host": host,
        "port": grant.port,
        "instance": grant.instance,
        "client": None if known is None else known.client,
        "url": DEFAULT_URL if known is None else known.url,
    }


def history_view(history: RequestHistory | None, client: str) -> RequestHistoryView:
    """The history, if it is the client's; raises :class:`NoSuchLease`."""
    if history is None or client not in {OPERATOR, history.terms.client}:
        raise NoSuchLease(
            "nothing is known of that lease or refusal, or not any more",
            hint="the pool server remembers the latest; its log goes further back",
        )
    lease = history.lease
    return RequestHistoryView(
        client=history.terms.client,
        services=list(history.terms.services),
        ttl=history.terms.ttl if lease is None else lease.ttl,
        wait=history.terms.wait,
        asked=history.asked,
        ahead=history.ahead,
        decided=history.decided,
        refusal=history.refusal,
        lease=None if lease is None else lease.id,
        generation=None if lease is None else lease.generation,
        instances=[] if lease is None else [grant.instance for grant in lease.grants],
        renewals=history.renewals,
        ended=history.ended or None,
        how=history.how,
    )


@lru_cache(maxsize=64)
def _plain(host: str) -> str:
    """An address as users write it."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def services_host(manager: PoolManager, server: tuple[str, int | None] | None) -> str:
    """Where the services of a lease are for a client that reached us at ``server``."""
    configured = manager.settings.services_host
    if configured in {manager.settings.listen.host, *EVERYWHERE}:
        return _plain(server[0] if server else "127.0.0.1")
    return configured
