"""Who waits for which services, in the order in which they came.

Nobody is overtaken by a later request that wants a service they wait for; requests that want
nothing of what others wait for pass by.
"""

from __future__ import annotations

from collections import Counter

from socketpool.errors import NoCapacity

MOST_WAITING = 1000


class Waiter:
    """One request that could not be served at once; takes part until it leaves or was served."""

    __slots__ = ("client", "services")

    def __init__(self, services: tuple[str, ...], client: str) -> None:
        self.services = services
        self.client = client

    def serve(self) -> bool:
        """Its turn has come: give it what it waits for, or see to it that it hears why it never
        will get that; False when there is not enough for it yet."""
        raise NotImplementedError


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
            if claimed.isdisjoint(waiter.services) and waiter.serve():
                self.leave(waiter)
            else:
                claimed.update(waiter.services)

    def count_of(self, client: str) -> int:
        """How many of the client's requests wait."""
        return sum(waiter.client == client for waiter in self._waiters)

    def demand(self) -> dict[str, int]:
        """How many waiters want each service."""
        return dict(self._demand)
