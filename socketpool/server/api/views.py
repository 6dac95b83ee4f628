"""What the API shows of leases and of their stories."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from socketpool.config.values import DEFAULT_URL, EVERYWHERE
from socketpool.core.permissions import OPERATOR
from socketpool.errors import NoSuchLease
from socketpool.server.api.schema import StoryView

if TYPE_CHECKING:
    from socketpool.core.records import Grant, Lease
    from socketpool.server.leases.history import Story
    from socketpool.server.poolmanager import Keeper


def lease_facts(keeper: Keeper, lease: Lease, host: str) -> dict[str, Any]:
    """The fields of a `LeaseView`, as plain as JSON has them."""
    return {
        "lease": lease.id,
        "ttl": lease.ttl,
        "expires_in": keeper.seconds_left(lease),
        "created": keeper.leases.created(lease),
        "services": [_leased(keeper, grant, host) for grant in lease.grants],
    }


def _leased(keeper: Keeper, grant: Grant, host: str) -> dict[str, Any]:
    known = keeper.settings.services.get(grant.service)  # a reload may have taken it away
    return {
        "service": grant.service,
        "host": host,
        "port": grant.port,
        "instance": grant.instance,
        "client": None if known is None else known.client,
        "url": DEFAULT_URL if known is None else known.url,
    }


def story_view(story: Story | None, client: str) -> StoryView:
    """The story as far as it is the client's; raises :class:`NoSuchLease`."""
    if story is None or client not in {OPERATOR, story.ask.client}:
        raise NoSuchLease(
            "nothing is known of that lease or refusal, or not any more",
            hint="the pool server remembers the latest; its log goes further back",
        )
    lease = story.lease
    return StoryView(
        client=story.ask.client,
        services=list(story.ask.services),
        ttl=story.ask.ttl if lease is None else lease.ttl,
        wait=story.ask.wait,
        asked=story.asked,
        ahead=story.ahead,
        decided=story.decided,
        refusal=story.refusal,
        lease=None if lease is None else lease.id,
        generation=None if lease is None else lease.generation,
        instances=[] if lease is None else [grant.instance for grant in lease.grants],
        renewals=story.renewals,
        ended=story.ended or None,
        how=story.how,
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


def services_host(keeper: Keeper, server: tuple[str, int | None] | None) -> str:
    """Where the services of a lease are for a client that reached us at ``server``."""
    configured = keeper.settings.services_host
    if configured in {keeper.settings.listen.host, *EVERYWHERE}:
        return _plain(server[0] if server else "127.0.0.1")
    return configured
