"""Who waits for which services, in the order in which they came.

Nobody is overtaken by a later request that wants a service they wait for; requests that want
nothing of what others wait for pass by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from socketpool.core.pool import Exhausted
from socketpool.errors import NoCapacity, SocketpoolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from socketpool.core.records import Lease

MOST_WAITING = 1000


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that could not be served at once.

    ``future`` gets the lease when its turn has come, or what ``grant`` raises but Exhausted; the
    waiter takes part until it is done.
    """

    services: tuple[str, ...]
    client: str
    grant: Callable[[], Lease]
    future: asyncio.Future[Lease] = field(repr=False)


class WaitQueue:
    """First come, first served, for each service."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._demand: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiters)

    def must_wait(self, services: tuple[str, ...]) -> bool:
        """Whether somebody already waits for any of these services."""
        return not self._demand.keys().isdisjoint(services)

    def join(self, waiter: Waiter) -> int:
        """Take a place; returns how many were waiting before.  Raises :class:`NoCapacity`."""
        if len(self._waiters) >= MOST_WAITING:
            raise NoCapacity(
                f"{MOST_WAITING} requests are waiting already", hint="try again in a minute"
            )
        self._waiters[waiter] = None
        self._demand.update(set(waiter.services))
        return len(self._waiters) - 1

    def leave(self, waiter: Waiter) -> None:
        """Give the place up, if it is still held."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            for name in set(waiter.services):
                self._demand[name] -= 1
                if not self._demand[name]:
                    del self._demand[name]

    def serve(self) -> None:
        """Grant whatever can be granted now, without letting anyone overtake."""
        claimed: set[str] = set()
        for waiter in list(self._waiters):
            if len(claimed) == len(self._demand):
                return  # all that anybody wants is spoken for
            if waiter.future.done():
                self.leave(waiter)
            elif not claimed.isdisjoint(waiter.services):
                claimed.update(waiter.services)
            else:
                try:
                    waiter.future.set_result(waiter.grant())
                except Exhausted:
                    claimed.update(waiter.services)
                except SocketpoolError as error:
                    waiter.future.set_exception(error)
                if waiter.future.done():
                    self.leave(waiter)

    def count_of(self, client: str) -> int:
        """How many of the client's requests wait."""
        return sum(waiter.client == client for waiter in self._waiters)

    def demand(self) -> dict[str, int]:
        """How many waiters want each service."""
        return dict(self._demand)
