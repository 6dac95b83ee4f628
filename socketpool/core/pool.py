"""The pool's tables and the one lock-free pass that grants a lease over them.

Owns which instance is in which state and who holds what.  Leaves to its caller: supervisord, the
store, waiting, and the clock (monotonic seconds, passed in).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from socketpool.core.clients import OPERATOR
from socketpool.core.lifecycle import (
    INSTANCE,
    LEASE,
    InstanceEvent,
    InstanceState,
    LeaseEvent,
)
from socketpool.core.ports import PortRange, free_runs
from socketpool.core.records import Grant, Instance, Lease, ServicePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

MOVING = frozenset({InstanceState.STARTING, InstanceState.RECYCLING})
"""States that an instance leaves by itself, sooner or later."""

EXITS_BEFORE_FAILED = 3
"""So many exits before it was ever ready mark an instance as failed."""


class UnknownService(LookupError):
    """A requested service is not in the catalogue."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Exhausted(LookupError):
    """No idle instance of a requested service is left."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service


class Pool:
    """All instances and leases of one pool server.

    Not thread-safe: one event loop owns it.
    """

    def __init__(
        self,
        services: Iterable[ServicePlan],
        ports: PortRange,
        *,
        max_age: float,
        new_id: Callable[[], str],
    ) -> None:
        self.services = {service.name: service for service in services}
        self.ports = ports
        self.instances: dict[int, Instance] = {}
        self.leases: dict[str, Lease] = {}
        self.generation = 0
        self._max_age = max_age
        self._new_id = new_id
        self._by_key: dict[tuple[str, str], str] = {}  # client and request key -> lease
        self._count: Counter[str] = Counter()  # client -> its leases
        self._moving: set[int] = set()  # ports of instances that are starting or recycling
        # In the order in which they became idle, so that use is spread and what was just given
        # back rests longest.
        self._idle: dict[str, OrderedDict[int, None]] = {n: OrderedDict() for n in self.services}

    # -- instances ---------------------------------------------------------------------------

    def add(self, instance: Instance) -> None:
        """Take in an instance that supervisord has, or is about to have."""
        if instance.port in self.instances:
            raise ValueError(f"port {instance.port} already belongs to an instance")
        self._set(instance)

    def apply(self, port: int, event: InstanceEvent, now: float) -> Instance:
        """Let an event of the outside world happen to an instance; returns it as it is now."""
        before = self.instances[port]
        state = INSTANCE.after(before.state, event)
        after = replace(before, state=state, since=before.since if state is before.state else now)
        if event is InstanceEvent.LOST:
            leased = before.state is InstanceState.LEASED
            after = replace(after, pid=0, dirty=leased, exits=before.exits + (not leased))
        elif event is InstanceEvent.READY:
            after = replace(after, exits=0, dirty=False)
        self._set(after)
        return after

    def _set(self, instance: Instance) -> None:
        self.instances[instance.port] = instance
        if instance.state is InstanceState.IDLE:
            self._idle[instance.service][instance.port] = None
        else:
            self._idle[instance.service].pop(instance.port, None)
        if instance.state in MOVING:
            self._moving.add(instance.port)
        else:
            self._moving.discard(instance.port)

    def saw(self, port: int, pid: int) -> None:
        """Note the process that supervisord reports for an instance."""
        self.instances[port] = replace(self.instances[port], pid=pid)

    def overdue(self, now: float) -> list[Instance]:
        """Starting instances that are past their start limit or exit again and again."""
        return [
            i
            for i in self.instances.values()
            if i.state is InstanceState.STARTING
            and (
                i.exits >= EXITS_BEFORE_FAILED
                or now - i.since > self.services[i.service].start_limit
            )
        ]

    def idle_count(self, service: str) -> int:
        """How many instances of the service could be leased now."""
        return len(self._idle[service])

    def all_failed(self, service: str) -> bool:
        """Whether the service has instances, and not one that works or may yet."""
        states = {i.state for i in self.instances.values() if i.service == service}
        return states == {InstanceState.FAILED}

    def settled(self) -> bool:
        """Whether no instance is on its way: each is ready, leased or has failed."""
        return not self._moving

    def plan_growth(self, service: str, wanted: int, busy: Collection[int] = ()) -> list[range]:
        """Ports for up to ``wanted`` more instances, within the service's maximum and the range."""
        existing = sum(i.service == service for i in self.instances.values())
        room = self.services[service].most - existing
        taken = self.instances.keys() | set(busy)
        return free_runs(self.ports, taken, max(0, min(wanted, room)))

    # -- leases ------------------------------------------------------------------------------

    def grant(
        self, names: Sequence[str], *, ttl: float, key: str, now: float, client: str = OPERATOR
    ) -> Lease:
        """Lease one idle instance of each named service, all or nothing.

        The same ``key`` of the same client returns the lease that it already got.  Raises
        :class:`UnknownService` or :class:`Exhausted`, and then nothing has changed.
        """
        known = self.find(client, key)
        if known is not None:
            return known
        for name in names:
            if name not in self.services:
                raise UnknownService(name)
        for name, wanted in Counter(names).items():
            if len(self._idle[name]) < wanted:
                raise Exhausted(name)
        grants = []
        for name in names:
            port = next(iter(self._idle[name]))
            instance = self.apply(port, InstanceEvent.GRANTED, now)
            grants.append(Grant(name, port, instance.name))
        self.generation += 1
        lease = Lease(
            id=self._new_id(),
            generation=self.generation,
            grants=tuple(grants),
            ttl=ttl,
            expires=now + min(ttl, self._max_age),
            until=now + self._max_age,
            key=key,
            client=client,
        )
        self._remember(lease)
        return lease

    def find(self, client: str, key: str) -> Lease | None:
        """The live lease that a client's request key got."""
        return self.leases.get(self._by_key.get((client, key), ""))

    def count_of(self, client: str) -> int:
        """How many leases the client has."""
        return self._count[client]

    def restore(self, lease: Lease) -> None:
        """Take back a lease that the store remembers; its instances were added as leased."""
        self.generation = max(self.generation, lease.generation)
        self._remember(lease)

    def renew(self, lease_id: str, now: float) -> Lease:
        """Extend by the lease's time to live, up to its maximum age; raises KeyError."""
        lease = self.leases[lease_id]
        state = LEASE.after(lease.state, LeaseEvent.RENEW)
        renewed = replace(lease, state=state, expires=min(now + lease.ttl, lease.until))
        self.leases[lease_id] = renewed
        return renewed

    def end(self, lease_id: str, event: LeaseEvent, now: float) -> Lease:
        """Release or expire a lease and give its instances back; raises KeyError."""
        lease = self.leases[lease_id]
        ended = replace(lease, state=LEASE.after(lease.state, event))
        del self.leases[lease_id]
        self._by_key.pop((lease.client, lease.key), None)
        self._count[lease.client] -= 1
        for grant in lease.grants:
            dirty = self.services[grant.service].restart or self.instances[grant.port].dirty
            returned = InstanceEvent.RETURNED_DIRTY if dirty else InstanceEvent.RETURNED
            self.apply(grant.port, returned, now)
        return ended

    def expired(self, now: float) -> list[Lease]:
        """Leases whose time is over."""
        return [lease for lease in self.leases.values() if lease.expires <= now]

    def _remember(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self._count[lease.client] += 1
        if lease.key:
            self._by_key[lease.client, lease.key] = lease.id
