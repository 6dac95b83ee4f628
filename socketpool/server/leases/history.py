"""What became of each request for a lease, for those who ask later: ``socketpool explain``.

Kept in memory, for the most recent requests; the log has the same facts for longer.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from socketpool.server.leases.terms import Ask

if TYPE_CHECKING:
    from socketpool.core.lifecycle import LeaseEvent
    from socketpool.core.records import Lease
    from socketpool.errors import SocketpoolError

MOST_STORIES = 2000


@dataclass(slots=True)
class Story:
    """One request: times are wall-clock seconds since the epoch, 0 for what has not happened.

    ``ahead`` is how many requests waited when it joined the queue, None when it didn't have to.
    """

    ask: Ask
    asked: float = field(default_factory=time.time)
    ahead: int | None = None
    decided: float = 0.0
    lease: Lease | None = None
    refusal: str = ""
    renewals: int = 0
    ended: float = 0.0
    how: str = ""


class Stories:
    """The latest stories, by the id of the lease or, where there is none, of the refusal."""

    def __init__(self) -> None:
        self._stories: OrderedDict[str, Story] = OrderedDict()

    def find(self, reference: str) -> Story | None:
        """The story of a lease or a refusal, if it is still remembered."""
        return self._stories.get(reference)

    def granted(self, story: Story, lease: Lease) -> None:
        """It got a lease."""
        story.decided = time.time()
        story.lease = lease
        self._keep(lease.id, story)

    def restored(self, lease: Lease, created: float) -> None:
        """A lease from before the server's restart."""
        services = tuple(grant.service for grant in lease.grants)
        ask = Ask(services, lease.ttl, lease.key, 0.0, lease.client)
        self._keep(lease.id, Story(ask, asked=created, decided=created, lease=lease))

    def refused(self, story: Story, error: SocketpoolError) -> None:
        """It got nothing; from here on the error bears the reference to its story."""
        story.decided = time.time()
        story.refusal = error.message
        error.reference = secrets.token_hex(8)
        self._keep(error.reference, story)

    def renewed(self, lease_id: str) -> None:
        """Its lease was renewed."""
        if lease_id in self._stories:
            self._stories[lease_id].renewals += 1

    def ended(self, lease_id: str, how: LeaseEvent) -> None:
        """Its lease is over."""
        if lease_id in self._stories:
            story = self._stories[lease_id]
            story.ended = time.time()
            story.how = how

    def _keep(self, reference: str, story: Story) -> None:
        self._stories[reference] = story
        if len(self._stories) > MOST_STORIES:
            self._stories.popitem(last=False)
