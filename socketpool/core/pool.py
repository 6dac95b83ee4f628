"""The pool's tables and the one lock-free pass that grants a lease over them.

Owns which instance is in which state and who holds what.  Leaves to its caller: supervisord, the
store, waiting, and the clock (monotonic seconds, passed in).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from math import inf
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import (
    HELD,
    LEASE,
    MOVING,
    InstanceEvent,
    InstanceState,
    LeaseEvent,
    LeaseState,
)
from socketpool.core.permissions import OPERATOR
from socketpool.core.ports import PortRange, free_runs
from socketpool.core.records import Grant, Instance, Lease, ServicePlan
from socketpool.core.warmset import Usage
from socketpool.defaults import PORT_REST_SECONDS, SHRINK_AFTER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

FIRST_START = frozenset({InstanceState.REGISTERED, InstanceState.STARTING})

WORKING = frozenset(
    {
        InstanceState.REGISTERED,
        InstanceState.STARTING,
        InstanceState.IDLE,
        InstanceState.LEASED,
        InstanceState.RECYCLING,
    }
)
"""The states in which an instance can be leased, or will be again when nothing goes wrong."""


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
        use_window: float = SHRINK_AFTER_SECONDS,
        port_rest: float = PORT_REST_SECONDS,
    ) -> None:
        self.ports = ports
        self.max_age = max_age
        self.use_window = use_window
        self.port_rest = port_rest
        self.services: dict[str, ServicePlan] = {}
        self.instances: dict[int, Instance] = {}
        self.leases: dict[str, Lease] = {}
        self.usage: dict[str, Usage] = {}
        self.held: Counter[str] = Counter()  # service -> instances that belong to a lease
        self.generation = 0
        self._new_id = new_id
        self._by_key: dict[tuple[str, str], str] = {}  # client and request key -> lease
        self._count: Counter[str] = Counter()  # client -> its leases
        self._moving: set[int] = set()  # ports of instances that are on their way
        self._registered: set[int] = set()  # ports of instances that wait to be started
        self._resting: dict[int, tuple[str, float]] = {}  # port -> service that had it, until
        # In the order in which they became idle, so that use is spread and what was just given
        # back rests longest.
        self._idle: dict[str, OrderedDict[int, None]] = {}
        self.configure(services)

    def configure(self, services: Iterable[ServicePlan]) -> None:
        """From now on offer these services; instances of others are left to be drained."""
        self.services = {service.name: service for service in services}
        for name in self.services:
            self._know(name)
        for usage in self.usage.values():
            usage.window = self.use_window

    # -- instances ---------------------------------------------------------------------------

    def add(self, instance: Instance) -> None:
        """Take in an instance that supervisord has, or is about to have."""
        if instance.port in self.instances:
            raise ValueError(f"port {instance.port} already belongs to an instance")
        self._know(instance.service)
        self.instances[instance.port] = instance
        self._resting.pop(instance.port, None)
        if instance.state in MOVING:
            self._moving.add(instance.port)
        if instance.state is InstanceState.REGISTERED:
            self._registered.add(instance.port)
        if instance.state is InstanceState.IDLE:
            self._idle[instance.service][instance.port] = None
        self.held[instance.service] += instance.state in HELD

    def apply(self, port: int, event: InstanceEvent, now: float) -> Instance:
        """Let an event of the outside world happen to an instance; returns it as it is now."""
        before = self.instances[port]
        after = self.instances[port] = before.after(event, now)
        if event is InstanceEvent.READY:
            self.usage[after.service].note_start(now - before.since)
        if after.state is not before.state:
            self._note_state(before, after, now)
        return after

    def fail(self, port: int, retry_at: float, now: float) -> Instance:
        """Give an instance up until ``retry_at``."""
        after = self.apply(port, InstanceEvent.OVERDUE, now)
        after = after._replace(failures=after.failures + 1, retry_at=retry_at)
        self.instances[port] = after
        return after

    def note(self, port: int, fact: str, *, value: object) -> None:
        """Note a fact about an instance: another value of a field of it that is not its state."""
        self.instances[port] = self.instances[port].noting(fact, value=value)

    def saw(self, port: int, pid: int) -> None:
        """Note the process that an instance has, 0 for none."""
        self.instances[port] = self.instances[port].saw(pid)

    def start_limit(self, service: str) -> float:
        """How many seconds an instance may take to become ready; infinite for unknown services."""
        plan = self.services.get(service)
        return inf if plan is None else plan.start_limit

    def idle_count(self, service: str) -> int:
        """How many instances of the service could be leased now."""
        return len(self._idle[service])

    def starting_count(self, service: str) -> int:
        """How many instances of the service start for the first time and have not failed yet.

        Those that start again after a lease don't count: a stream of short leases would keep some
        of them starting for ever.
        """
        count = 0
        for port in self._moving:
            instance = self.instances[port]
            count += (
                instance.service == service
                and instance.state in FIRST_START
                and not (instance.up_since or instance.exits or instance.failures)
            )
        return count

    def reach(self, service: str) -> int:
        """The most instances of the service that one lease could get, if all leases ended now.

        Those that work, and as many more as its maximum and the free ports allow; a port that
        rests counts as free.
        """
        mine = self.of(service)
        working = sum(instance.state in WORKING for instance in mine)
        free = len(self.ports) - len(self.instances)
        plan = self.services.get(service)
        room = 0 if plan is None else plan.max_instances - len(mine)
        return working + max(0, min(room, free))

    def of(self, service: str) -> list[Instance]:
        """The instances of a service."""
        return [i for i in self.instances.values() if i.service == service]

    def all_failed(self, service: str) -> bool:
        """Whether the service has instances, and not one that works or may yet.

        One that is tried again after it failed still counts as failed.
        """
        if self._idle[service] or self.held[service]:
            return False
        failing = [
            i.state is InstanceState.FAILED
            or (i.state is InstanceState.STARTING and i.failures > 0)
            for i in self.of(service)
        ]
        return bool(failing) and all(failing)

    def has_registered(self) -> bool:
        """Whether an instance waits to be started."""
        return bool(self._registered)

    def settled(self) -> bool:
        """Whether no instance is on its way: each is ready, leased, stopped or has failed."""
        return not self._moving

    def missing(self, service: str, waiting: int, now: float) -> int:
        """How many more instances are needed for requests, the warm set and what is to come.

        ``waiting`` is how many instances the waiting requests need in all.  No more than the
        service may have.  Failed ones don't count, but for a service of which nothing works one
        more is tried only: another port may help, more of them won't.
        """
        plan = self.services[service]
        states = Counter(i.state for i in self.of(service))
        failed = states[InstanceState.FAILED]
        gone = (*HELD, InstanceState.FAILED)
        coming = sum(count for state, count in states.items() if state not in gone)
        wanted = plan.warm + waiting + self.usage[service].ahead(now)
        room = plan.max_instances - sum(states.values())
        missing = max(0, min(wanted - coming, room))
        if failed and failed == sum(states.values()):
            return min(missing, max(0, plan.warm + 1 - failed))
        return missing

    def plan_growth(
        self, service: str, wanted: int, now: float, busy: Collection[int] = ()
    ) -> list[range]:
        """Ports for up to ``wanted`` more instances, within the service's maximum and the range.

        A port that another service has just given up rests.
        """
        room = self.services[service].max_instances - len(self.of(service))
        resting = {
            port
            for port, (owner, until) in self._resting.items()
            if owner != service and until > now
        }
        taken = self.instances.keys() | resting | set(busy)
        return free_runs(self.ports, taken, max(0, min(wanted, room)))

    def remove(self, port: int, now: float) -> None:
        """A stopped instance is no more; its port rests."""
        gone = self.apply(port, InstanceEvent.REMOVED, now)
        del self.instances[port]
        self._moving.discard(port)
        self._resting[port] = (gone.service, now + self.port_rest)

    def _know(self, service: str) -> None:
        self._idle.setdefault(service, OrderedDict())
        self.usage.setdefault(service, Usage(self.use_window))

    def _note_state(self, before: Instance, after: Instance, now: float) -> None:
        service = after.service
        self.held[service] += (after.state in HELD) - (before.state in HELD)
        if after.state is InstanceState.IDLE:
            self._idle[service][after.port] = None
        else:
            self._idle[service].pop(after.port, None)
        if after.state in MOVING:
            self._moving.add(after.port)
        else:
            self._moving.discard(after.port)
        if after.state is InstanceState.REGISTERED:
            self._registered.add(after.port)
        elif before.state is InstanceState.REGISTERED:
            self._registered.discard(after.port)
        if after.state is InstanceState.LEASED and before.state is InstanceState.IDLE:
            self.usage[service].note_lease(self.held[service], now)

    # -- leases ------------------------------------------------------------------------------

    def grant(
        self, names: Sequence[str], *, ttl: float, key: str, now: float, client: str = OPERATOR
    ) -> Lease:
        """Lease one idle instance of each named service, all or nothing; the lease is pending.

        The same ``key`` of the same client returns the lease that it already got.  Raises
        :class:`UnknownService` or :class:`Exhausted`, and then nothing has changed.
        """
        known = self.find(client, key)
        if known is not None:
            return known
        for name in names:
            if name not in self.services:
                raise UnknownService(name)
        for name in names:
            if len(self._idle[name]) < names.count(name):
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
            expires=now + min(ttl, self.max_age),
            until=now + self.max_age,
            key=key,
            client=client,
            state=LeaseState.PENDING,
        )
        self._remember(lease)
        return lease

    def activate(self, lease_id: str, created: float) -> Lease:
        """The store has a pending lease, granted at this wall-clock second; raises KeyError."""
        lease = self.leases[lease_id]
        state = LEASE.after(lease.state, LeaseEvent.STORE)
        # As `_replace`, which takes several times as long, for what happens at each lease.
        active = self.leases[lease_id] = Lease(*lease[:-2], state, created)
        return active

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
        renewed = lease._replace(state=state, expires=min(now + lease.ttl, lease.until))
        self.leases[lease_id] = renewed
        return renewed

    def end(self, lease_id: str, event: LeaseEvent, now: float) -> Lease:
        """Release or expire a lease and give its instances back; raises KeyError."""
        lease = self.leases[lease_id]
        ended = lease._replace(state=LEASE.after(lease.state, event))
        del self.leases[lease_id]
        self._by_key.pop((lease.client, lease.key), None)
        self._count[lease.client] -= 1
        for grant in lease.grants:
            plan = self.services.get(grant.service)
            dirty = plan is None or plan.restart or self.instances[grant.port].dirty
            returned = InstanceEvent.RETURNED_DIRTY if dirty else InstanceEvent.RETURNED
            self.apply(grant.port, returned, now)
        return ended

    def expired(self, now: float) -> list[Lease]:
        """Active leases whose time is over; a pending one expires once it is active."""
        return [
            lease
            for lease in self.leases.values()
            if lease.expires <= now and lease.state is LeaseState.ACTIVE
        ]

    def _remember(self, lease: Lease) -> None:
        self.leases[lease.id] = lease
        self._count[lease.client] += 1
        if lease.key:
            self._by_key[lease.client, lease.key] = lease.id
