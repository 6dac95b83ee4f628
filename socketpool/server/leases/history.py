"""What became of each request for a lease, for those who ask later: ``socketpool explain``.

Kept in memory, for the most recent requests; the log has the same facts for longer.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from socketpool.server.leases.terms import LeaseTerms

if TYPE_CHECKING:
    from socketpool.core.lifecycle import LeaseEvent
    from socketpool.core.records import Lease
    from socketpool.errors import SocketpoolError

MAX_HISTORIES = 2000


@dataclass(slots=True)
class RequestHistory:
    """One request: times are wall-clock seconds since the epoch, 0 for what has not happened.

    ``ahead`` is how many requests waited when it joined the queue, None when it didn't have to.
    """

    terms: LeaseTerms
    asked: float = field(default_factory=time.time)
    ahead: int | None = None
    decided: float = 0.0
    lease: Lease | None = None
    refusal: str = ""
    renewals: int = 0
    ended: float = 0.0
    how: str = ""


class RequestHistories:
    """The latest histories, by the id of the lease or, where there is none, of the refusal."""

    def __init__(self) -> None:
        self._histories: OrderedDict[str, RequestHistory] = OrderedDict()

    def find(self, reference: str) -> RequestHistory | None:
        """The history of a lease or a refusal, if it is still kept."""
        return self._histories.get(reference)

    def granted(self, history: RequestHistory, lease: Lease) -> None:
        """It got a lease."""
        history.decided = time.time()
        history.lease = lease
        self._add(lease.id, history)

    def restored(self, lease: Lease, created: float) -> None:
        """A lease from before the server's restart."""
        services = tuple(grant.service for grant in lease.grants)
        terms = LeaseTerms(services, lease.ttl, lease.key, 0.0, lease.client)
        self._add(lease.id, RequestHistory(terms, asked=created, decided=created, lease=lease))

    def refused(self, history: RequestHistory, error: SocketpoolError) -> None:
        """It got nothing; from here on the error bears the reference to its history."""
        history.decided = time.time()
        history.refusal = error.message
        error.reference = secrets.token_hex(8)
        self._add(error.reference, history)

    def renewed(self, lease_id: str) -> None:
        """Its lease was renewed."""
        if lease_id in self._histories:
            self._histories[lease_id].renewals += 1

    def ended(self, lease_id: str, how: LeaseEvent) -> None:
        """Its lease is over."""
        if lease_id in self._histories:
            history = self._histories[lease_id]
            history.ended = time.time()
            history.how = how

    def _add(self, reference: str, history: RequestHistory) -> None:
        self._histories[reference] = history
        if len(self._histories) > MAX_HISTORIES:
            self._histories.popitem(last=False)
