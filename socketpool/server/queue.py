"""Who waits for which services, in the order in which they came.

Nobody is overtaken by a later request that wants a service they wait for; requests that want
nothing of what others wait for pass by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from socketpool.core.pool import Exhausted
from socketpool.errors import NoCapacity

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from socketpool.core.records import Lease

MOST_WAITING = 1000


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that could not be served at once."""

    services: tuple[str, ...]
    grant: Callable[[], Lease]
    future: asyncio.Future[Lease] = field(repr=False)


class WaitQueue:
    """First come, first served, for each service."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def must_wait(self, services: tuple[str, ...]) -> bool:
        """Whether somebody already waits for any of these services."""
        return any(set(services) & set(w.services) for w in self._waiters)

    def join(self, waiter: Waiter) -> int:
        """Take a place; returns how many were waiting before.  Raises :class:`NoCapacity`."""
        if len(self._waiters) >= MOST_WAITING:
            raise NoCapacity(
                f"{MOST_WAITING} requests are waiting already", hint="try again in a minute"
            )
        self._waiters.append(waiter)
        return len(self._waiters) - 1

    def leave(self, waiter: Waiter) -> None:
        """Give the place up, if it is still held."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def refuse(self, refusal: Callable[[str], NoCapacity | None]) -> None:
        """Send those away for whose services waiting makes no sense."""
        for waiter in self._waiters:
            if not waiter.future.done():
                for error in filter(None, map(refusal, waiter.services)):
                    waiter.future.set_exception(error)
                    break
        self._waiters = [waiter for waiter in self._waiters if not waiter.future.done()]

    def serve(self) -> None:
        """Grant whatever can be granted now, without letting anyone overtake."""
        still: list[Waiter] = []
        claimed: set[str] = set()
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            if not claimed.isdisjoint(waiter.services):
                still.append(waiter)
                claimed.update(waiter.services)
                continue
            try:
                waiter.future.set_result(waiter.grant())
            except Exhausted:
                still.append(waiter)
                claimed.update(waiter.services)
        self._waiters = still

    def demand(self) -> dict[str, int]:
        """How many waiters want each service."""
        wanted: dict[str, int] = {}
        for waiter in self._waiters:
            for service in waiter.services:
                wanted[service] = wanted.get(service, 0) + 1
        return wanted
