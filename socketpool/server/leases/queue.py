"""Who waits for which services, and who is served next.

The rule of fairness.  Requests are served in the order in which they came.  One that can't be
served yet reserves, of each service that it names, as many instances as it needs; a later request
gets an instance only when, after that, the idle ones and those that start for the first time still
cover what the requests before it reserve.  So a request for many is served in the end, and a
request for one does not wait beside instances that nobody before it could use.

Nothing is reserved for a request that could not be served even if every lease ended now, nor for
a client that has as many leases as it may have: such requests keep their place, and hold nobody
back until that changes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from socketpool.errors import NoCapacity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

MAX_WAITING = 1000


class Supply(Protocol):
    """What the queue asks about the pool.  Counts are of instances of one service."""

    def idle(self, service: str) -> int:
        """How many can be leased now."""

    def starting(self, service: str) -> int:
        """How many start for the first time and have not failed."""

    def reach(self, service: str) -> int:
        """How many there could be for one lease if all others ended and the service grew."""

    def closed(self, service: str) -> bool:
        """Whether waiting for the service makes no sense; its waiters are told by `serve`."""

    def allowance(self, client: str) -> int | None:
        """How many more leases the client may have; None for no bound."""


class Waiter:
    """One request that could not be served at once; takes part until it leaves or was served."""

    __slots__ = ("client", "needs", "services")

    def __init__(self, services: tuple[str, ...], client: str) -> None:
        self.services = services
        self.client = client
        self.needs = Counter(services)
        """Service -> instances; a service may be named several times."""

    def serve(self) -> bool:
        """Its turn has come: give it what it waits for, or see to it that it hears why it never
        will get that; False when there is not enough for it yet."""
        raise NotImplementedError


class WaitQueue:
    """The waiting requests of one pool, in the order in which they came."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._waiters: dict[Waiter, None] = {}
        self._named: Counter[str] = Counter()  # service -> waiters that name it

    def __len__(self) -> int:
        return len(self._waiters)

    def must_wait(self, services: tuple[str, ...], client: str) -> bool:
        """Whether a new request would take what is reserved for those who wait, or exceed its
        client's allowance."""
        allowance = self._supply.allowance(client)
        if allowance is None and self._named.keys().isdisjoint(services):
            return False
        needs = Counter(services)
        reserved = Reservations(self._supply)
        before = 0
        for waiter in self._competing():
            if not reserved.leave(needs):
                return True
            reserved.add(waiter.needs)
            before += waiter.client == client
        return (allowance is not None and allowance <= before) or not reserved.leave(needs)

    def join(self, waiter: Waiter) -> int:
        """Take a place; returns how many were waiting before.  Raises :class:`NoCapacity`."""
        if len(self._waiters) >= MAX_WAITING:
            raise NoCapacity(
                f"{MAX_WAITING} requests are waiting already", hint="try again in a minute"
            )
        self._waiters[waiter] = None
        self._named.update(waiter.needs.keys())
        return len(self._waiters) - 1

    def leave(self, waiter: Waiter) -> None:
        """Give the place up, if it is still held."""
        if waiter in self._waiters:
            del self._waiters[waiter]
            for name in waiter.needs:
                self._named[name] -= 1
                if not self._named[name]:
                    del self._named[name]

    def serve(self) -> None:
        """Grant whatever can be granted now under the rule above."""
        if not self._waiters:
            return
        supply = self._supply
        reserved = Reservations(supply)
        closed = {name for name in self._named if supply.closed(name)}
        available = closed | {name for name in self._named if reserved.leave({name: 1})}
        for waiter in self._competing(closed):
            if not available:
                return  # all that anybody waits for is reserved
            may = not closed.isdisjoint(waiter.needs) or reserved.leave(waiter.needs)
            if may and waiter.serve():
                self.leave(waiter)
            else:
                reserved.add(waiter.needs)
            for name in waiter.needs.keys() - closed:
                if not reserved.leave({name: 1}):
                    available.discard(name)

    def count_of(self, client: str) -> int:
        """How many of the client's requests wait."""
        return sum(waiter.client == client for waiter in self._waiters)

    def demand(self) -> dict[str, int]:
        """How many instances of each service the requests need that compete for them now."""
        demand: Counter[str] = Counter()
        for waiter in self._competing():
            demand.update(waiter.needs)
        return dict(demand)

    def _competing(self, closed: Collection[str] = ()) -> Iterator[Waiter]:
        """Those that can be served as things stand, or must hear that they never will."""
        supply = self._supply
        reach = {name: supply.reach(name) for name in self._named}
        before: Counter[str] = Counter()  # client -> its requests that were passed on and wait yet
        for waiter in list(self._waiters):
            if not any(name in closed for name in waiter.needs):
                if any(reach[name] < need for name, need in waiter.needs.items()):
                    continue
                allowance = supply.allowance(waiter.client)
                if allowance is not None and allowance <= before[waiter.client]:
                    continue
            yield waiter
            before[waiter.client] += waiter in self._waiters


class Reservations:
    """What is reserved for the requests before one, at one moment."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._reserved: Counter[str] = Counter()
        self._starting: dict[str, int] = {}

    def add(self, needs: Mapping[str, int]) -> None:
        """Reserve what a request needs."""
        self._reserved.update(needs)

    def leave(self, needs: Mapping[str, int]) -> bool:
        """Whether a request may have what it needs, all of it idle now."""
        for service, need in needs.items():
            idle = self._supply.idle(service)
            if idle < need:
                return False
            reserved = self._reserved[service]
            if reserved and idle - need < reserved - self._starts(service):
                return False
        return True

    def _starts(self, service: str) -> int:
        if service not in self._starting:
            self._starting[service] = self._supply.starting(service)
        return self._starting[service]
