"""Requests for leases, between their arrival and the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from socketpool.core.records import Lease
from socketpool.errors import SocketpoolError
from socketpool.server.leases.history import RequestHistory
from socketpool.server.leases.queue import Waiter

if TYPE_CHECKING:
    import asyncio

    from socketpool.server.leases.terms import LeaseTerms

Answered = Callable[[Lease | SocketpoolError], None]


class ClientGone(SocketpoolError):
    """The client hung up; nobody reads this answer."""

    code = "client-gone"


class Request:
    """What one client asked; ``answered`` is called at most once.

    ``pending`` is None when it has been answered or abandoned; ``timer`` runs while it waits.
    """

    __slots__ = ("answered", "history", "pending", "terms", "timer")

    def __init__(self, terms: LeaseTerms, answered: Answered) -> None:
        self.terms = terms
        self.answered = answered
        self.history = RequestHistory(terms)
        self.pending: Pending | None = None
        self.timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        """It has what it waited for, or waits no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Pending(Waiter):
    """A lease to be: waits for its turn if it must, and then for the store.

    Several requests may share it, under one key.  ``lease`` is what was granted, not yet durable;
    ``serve`` grants it, and returns False when there is not enough yet.
    """

    __slots__ = ("_serve", "history", "lease", "requests", "terms")

    def __init__(
        self, terms: LeaseTerms, history: RequestHistory, serve: Callable[[Pending], bool]
    ) -> None:
        super().__init__(terms.services, terms.client)
        self.terms = terms
        self.history = history
        self.requests: list[Request] = []
        self.lease: Lease | None = None
        self._serve = serve

    def serve(self) -> bool:
        """See `Waiter.serve`."""
        return self._serve(self)
