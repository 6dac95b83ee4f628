"""The pool's tables under any sequence of events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from socketpool.core.decision import is_overdue
from socketpool.core.lifecycle import (
    HELD,
    INSTANCE,
    MOVING,
    IllegalTransition,
    InstanceEvent,
    InstanceState,
    LeaseEvent,
    LeaseState,
)
from socketpool.core.permissions import OPERATOR
from socketpool.core.pool import Exhausted, Pool, UnknownService
from socketpool.core.ports import PortRange
from socketpool.core.records import (
    EXITS_BEFORE_FAILED,
    STABLE_SECONDS,
    Grant,
    Instance,
    Lease,
    ServicePlan,
)
from socketpool.defaults import PORT_REST_SECONDS

MAX_AGE = 100.0
SERVICES = (
    ServicePlan("up", warm=1, max_instances=3, restart=False),
    ServicePlan("web", warm=1, max_instances=2, restart=True, start_limit=5.0),
    ServicePlan("down", warm=2, max_instances=4, restart=False),
)
NAMES = [service.name for service in SERVICES]
PORTS = PortRange(2000, 2007)
CLIENTS = (OPERATOR, "acme", "shop")


def new_pool() -> Pool:
    ids = map(str, itertools.count(1))
    return Pool(SERVICES, PORTS, max_age=MAX_AGE, new_id=lambda: next(ids))


def pool_with(**idle: int) -> Pool:
    """A pool with so many idle instances of each service."""
    pool = new_pool()
    ports = iter(PORTS)
    for service, count in idle.items():
        for port in itertools.islice(ports, count):
            pool.add(Instance(service, port, service, InstanceState.IDLE))
    return pool


def overdue(pool: Pool, now: float) -> list[Instance]:
    """Starting instances that are past their start limit or exit again and again."""
    every = pool.instances.values()
    return [i for i in every if is_overdue(i, pool.start_limit(i.service), now)]


def grant(pool: Pool, *names: str, ttl: float, key: str = "", now: float) -> Lease:
    """A lease that its client was told of."""
    return pool.activate(pool.grant(names, ttl=ttl, key=key, now=now).id, 0.0)


class PoolMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, the promises hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = new_pool()
        self.now = 0.0
        self.generations = [0]

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(service=st.sampled_from(NAMES), wanted=st.integers(0, 5))
    def grow(self, service: str, wanted: int) -> None:
        if service not in self.pool.services:
            return
        for run in self.pool.plan_growth(service, wanted, self.now):
            for port in run:
                self.pool.add(Instance(service, port, service, since=self.now))

    @precondition(lambda self: self.pool.instances)
    @rule(data=st.data())
    def something_happens_outside(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.pool.instances)))
        outside = (
            InstanceEvent.READY,
            InstanceEvent.LOST,
            InstanceEvent.OVERDUE,
            InstanceEvent.SPAWNED,
            InstanceEvent.DISTRUSTED,
            InstanceEvent.DRAINED,
            InstanceEvent.RESUMED,
            InstanceEvent.STOPPED,
        )
        state = self.pool.instances[port].state
        possible = [e for e in outside if INSTANCE.allows(state, e)]
        if possible:
            self.pool.apply(port, data.draw(st.sampled_from(possible)), self.now)

    @precondition(lambda self: self.stopped())
    @rule(data=st.data())
    def a_stopped_instance_is_removed(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(self.stopped()))
        service = self.pool.instances[port].service
        self.pool.remove(port, self.now)
        for other in self.pool.services.keys() - {service}:
            runs = self.pool.plan_growth(other, 100, self.now + PORT_REST_SECONDS - 1)
            assert not any(port in run for run in runs), "its port rests"

    def stopped(self) -> list[int]:
        stopped = InstanceState.STOPPED
        return sorted(p for p, i in self.pool.instances.items() if i.state is stopped)

    @rule(
        names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
        ttl=st.floats(1, 2 * MAX_AGE),
        key=st.sampled_from(["", "", "a", "b"]),
        client=st.sampled_from(CLIENTS),
    )
    def ask_for_a_lease(self, names: list[str], ttl: float, key: str, client: str) -> None:
        ask: dict[str, Any] = {"ttl": ttl, "key": key, "now": self.now, "client": client}
        known = self.pool.find(client, key)
        before = (dict(self.pool.instances), dict(self.pool.leases), self.pool.generation)
        unknown = [name for name in names if name not in self.pool.services]
        lacking = [name for name in names if self.pool.idle_count(name) < names.count(name)]
        if (unknown or lacking) and known is None:
            with pytest.raises((Exhausted, UnknownService)) as caught:
                self.pool.grant(names, **ask)
            if unknown:
                assert isinstance(caught.value, UnknownService)
                assert caught.value.name == unknown[0]
            else:
                assert isinstance(caught.value, Exhausted)
                assert caught.value.service == lacking[0]
            assert (self.pool.instances, self.pool.leases, self.pool.generation) == before
            return
        lease = self.pool.grant(names, **ask)
        if known is not None:
            assert lease is known
            assert (self.pool.instances, self.pool.leases, self.pool.generation) == before
            return
        assert lease.state is LeaseState.PENDING
        lease = self.pool.activate(lease.id, 0.0)
        assert [grant.service for grant in lease.grants] == names
        assert (lease.client, lease.key) == (client, key)
        assert self.now < lease.expires <= lease.until == self.now + MAX_AGE
        assert all(before[0][g.port].state is InstanceState.IDLE for g in lease.grants)
        assert lease.generation > self.generations[-1]
        self.generations.append(lease.generation)

    @rule(gone=st.sampled_from(["", *NAMES]))
    def services_change(self, gone: str) -> None:
        self.pool.configure(service for service in SERVICES if service.name != gone)

    @rule()
    def the_server_restarts(self) -> None:
        """It knows the leases from the store, and the instances from supervisord."""
        before, self.pool = self.pool, new_pool()
        held = {grant.port for lease in before.leases.values() for grant in lease.grants}
        for port, instance in before.instances.items():
            state = InstanceState.LEASED if port in held else InstanceState.STARTING
            self.pool.add(Instance(instance.service, port, instance.block, state, self.now))
        self.pool.generation = before.generation
        for lease in before.leases.values():
            self.pool.restore(lease)

    @precondition(lambda self: self.pool.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease = self.pool.leases[data.draw(st.sampled_from(sorted(self.pool.leases)))]
        renewed = self.pool.renew(lease.id, self.now)
        assert renewed.expires == min(self.now + lease.ttl, lease.until)
        assert (renewed.grants, renewed.until) == (lease.grants, lease.until)

    @precondition(lambda self: self.pool.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.pool.leases))), LeaseEvent.RELEASE)

    @rule()
    def reclaim(self) -> None:
        for lease in self.pool.expired(self.now):
            self.end(lease.id, LeaseEvent.EXPIRE)
        assert all(lease.expires > self.now for lease in self.pool.leases.values())

    def end(self, lease_id: str, event: LeaseEvent) -> None:
        lease = self.pool.leases[lease_id]
        before = dict(self.pool.instances)
        self.pool.end(lease_id, event, self.now)
        for grant in lease.grants:
            offered = self.pool.services.get(grant.service)
            must_restart = offered is None or offered.restart or before[grant.port].dirty
            wanted = InstanceState.RECYCLING if must_restart else InstanceState.IDLE
            if before[grant.port].state is InstanceState.DRAINING:
                wanted = InstanceState.STOPPING
            assert self.pool.instances[grant.port].state is wanted
        if lease.key:
            assert self.pool.find(lease.client, lease.key) is None

    @invariant()
    def an_instance_is_leased_exactly_when_one_lease_has_it(self) -> None:
        held = [g.port for lease in self.pool.leases.values() for g in lease.grants]
        leased = [p for p, i in self.pool.instances.items() if i.state in HELD]
        assert sorted(held) == sorted(leased)
        assert sum(self.pool.held.values()) == len(leased)

    @invariant()
    def idle_counts_are_those_of_the_states(self) -> None:
        for name in NAMES:
            idle = [
                i
                for i in self.pool.instances.values()
                if i.service == name and i.state is InstanceState.IDLE
            ]
            assert self.pool.idle_count(name) == len(idle)
            assert not any(i.dirty for i in idle)

    @invariant()
    def growth_keeps_within_the_range_and_the_maximum(self) -> None:
        for service in SERVICES:
            mine = [i for i in self.pool.instances.values() if i.service == service.name]
            assert len(mine) <= service.max_instances
        assert all(port in PORTS for port in self.pool.instances)

    @invariant()
    def a_key_belongs_to_one_live_lease_of_its_client(self) -> None:
        leases = self.pool.leases.values()
        keys = [(lease.client, lease.key) for lease in leases if lease.key]
        assert len(keys) == len(set(keys))
        for lease in leases:
            assert not lease.key or self.pool.find(lease.client, lease.key) is lease
        for client in CLIENTS:
            assert self.pool.count_of(client) == sum(x.client == client for x in leases)

    @invariant()
    def it_is_settled_exactly_when_nothing_is_on_its_way(self) -> None:
        moving = [i for i in self.pool.instances.values() if i.state in MOVING]
        assert self.pool.settled() == (not moving)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_unknown_service_is_named_and_nothing_is_granted() -> None:
    pool = pool_with(up=1)
    with pytest.raises(UnknownService) as caught:
        pool.grant(["up", "nope"], ttl=1, key="", now=0)
    assert caught.value.name == "nope"
    assert pool.idle_count("up") == 1


def test_a_service_named_twice_is_granted_twice_or_not_at_all() -> None:
    pool = pool_with(up=1)
    with pytest.raises(Exhausted):
        pool.grant(["up", "up"], ttl=1, key="", now=0)
    assert pool.idle_count("up") == 1
    assert pool.leases == {}


def test_the_instance_idle_for_longest_is_leased_next() -> None:
    pool = pool_with(up=3)
    first = pool.grant(["up"], ttl=1, key="", now=0)
    pool.end(first.id, LeaseEvent.RELEASE, 1)
    ports = [pool.grant(["up"], ttl=1, key="", now=2).grants[0].port for _ in range(3)]
    assert ports == [2001, 2002, 2000]


def test_a_time_to_live_beyond_the_maximum_age_ends_with_it() -> None:
    lease = pool_with(up=1).grant(["up"], ttl=10 * MAX_AGE, key="", now=5)
    assert lease.expires == lease.until == 5 + MAX_AGE


def test_no_renewal_passes_the_maximum_age() -> None:
    pool = pool_with(up=1)
    lease = grant(pool, "up", ttl=60, now=0)
    assert pool.renew(lease.id, 90).expires == MAX_AGE


def test_after_a_key_s_lease_ended_the_key_gets_a_new_one() -> None:
    pool = pool_with(up=1)
    first = grant(pool, "up", ttl=1, key="k", now=0)
    pool.end(first.id, LeaseEvent.EXPIRE, 1)
    assert pool.grant(["up"], ttl=1, key="k", now=2).id != first.id


def test_leases_without_a_key_have_nothing_to_do_with_each_other() -> None:
    pool = pool_with(up=2)
    assert pool.find(OPERATOR, "") is None
    first, second = (pool.grant(["up"], ttl=1, key="", now=0) for _ in range(2))
    assert first.id != second.id
    assert pool.find(OPERATOR, "") is None


@pytest.mark.parametrize("what", ["renew", "end"])
def test_a_lease_that_is_no_more_can_t_be_touched(what: str) -> None:
    pool = pool_with(up=1)
    with pytest.raises(KeyError):
        pool.renew("x", 0) if what == "renew" else pool.end("x", LeaseEvent.RELEASE, 0)


def test_a_restored_lease_counts_and_later_generations_are_higher() -> None:
    pool = pool_with(up=1)
    pool.add(Instance("down", 2005, "down", InstanceState.LEASED))
    grants = (Grant("down", 2005, "down:2005"),)
    pool.restore(Lease("old", 7, grants, ttl=5, expires=5, until=50, key="k"))
    assert pool.grant(["down"], ttl=1, key="k", now=0).id == "old"
    assert grant(pool, "up", ttl=1, now=0).generation == 8
    assert [lease.id for lease in pool.expired(5.0)] == ["old", "1"]


def test_two_instances_can_t_have_one_port() -> None:
    pool = pool_with(up=1)
    with pytest.raises(ValueError, match="2000"):
        pool.add(Instance("web", 2000, "web"))


def test_growth_avoids_ports_that_others_hold_and_stops_at_the_maximum() -> None:
    pool = pool_with(up=1)
    assert pool.plan_growth("up", 5, 0, busy={2002}) == [range(2001, 2002), range(2003, 2004)]
    assert pool.plan_growth("web", 5, 0, busy=set(range(2000, 2007))) == [range(2007, 2008)]


def test_an_instance_is_overdue_after_its_start_limit_or_too_many_exits() -> None:
    pool = new_pool()
    pool.add(Instance("web", 2000, "web", since=10.0))
    pool.add(Instance("up", 2001, "up", since=10.0))
    assert overdue(pool, 15.0) == []
    assert [i.port for i in overdue(pool, 15.1)] == [2000]
    for _ in range(EXITS_BEFORE_FAILED):
        pool.apply(2001, InstanceEvent.LOST, 11.0)
    assert [i.port for i in overdue(pool, 11.0)] == [2001]


def up_again(pool: Pool, port: int, now: float) -> Instance:
    pool.apply(port, InstanceEvent.LOST, now)
    return pool.apply(port, InstanceEvent.READY, now)


def test_exits_of_one_that_is_ready_in_between_count_until_it_stays_up() -> None:
    pool = pool_with(up=1)
    for count in range(1, EXITS_BEFORE_FAILED):
        assert up_again(pool, 2000, 100.0).exits == count
    pool.apply(2000, InstanceEvent.LOST, 101.0)
    assert [i.port for i in overdue(pool, 101.0)] == [2000]


def test_a_long_time_up_forgives_earlier_exits_and_failures() -> None:
    pool = pool_with(up=1)
    pool.apply(2000, InstanceEvent.LOST, 0)
    pool.fail(2000, 50.0, 1.0)
    pool.apply(2000, InstanceEvent.READY, 2.0)
    assert (pool.instances[2000].exits, pool.instances[2000].failures) == (1, 1)
    lost = pool.apply(2000, InstanceEvent.LOST, 2.0 + STABLE_SECONDS)
    assert (lost.exits, lost.failures) == (1, 0)


def test_what_failed_is_tried_again_with_a_clean_count() -> None:
    pool = new_pool()
    pool.add(Instance("up", 2000, "up"))
    for _ in range(EXITS_BEFORE_FAILED):
        pool.apply(2000, InstanceEvent.LOST, 1.0)
    failed = pool.fail(2000, 9.0, 2.0)
    assert (failed.state, failed.failures, failed.retry_at) == (InstanceState.FAILED, 1, 9.0)
    again = pool.apply(2000, InstanceEvent.SPAWNED, 9.0)
    assert (again.state, again.exits, again.failures) == (InstanceState.STARTING, 0, 1)
    assert overdue(pool, 9.0) == []


def test_failed_ones_don_t_count_but_what_never_works_is_not_multiplied() -> None:
    pool = pool_with(down=2)
    assert pool.missing("down", 0, 0) == 0
    failing(pool, 2000)
    assert pool.missing("down", 0, 0) == 1
    failing(pool, 2001)
    assert pool.missing("down", 0, 0) == 1, "one more, on another port"
    pool.add(Instance("down", 2005, "down.2", InstanceState.FAILED))
    assert pool.missing("down", 3, 0) == 0
    pool.apply(2005, InstanceEvent.READY, 0)
    assert pool.missing("down", 3, 0) == 1, "there may be four"


def failing(pool: Pool, port: int) -> None:
    pool.apply(port, InstanceEvent.LOST, 0)
    pool.fail(port, 1.0, 0)


def test_a_service_has_failed_while_its_only_instance_is_tried_again() -> None:
    pool = pool_with(up=1)
    assert not pool.all_failed("up")
    assert not pool.all_failed("web"), "it has none yet"
    failing(pool, 2000)
    assert pool.all_failed("up")
    pool.apply(2000, InstanceEvent.SPAWNED, 1)
    assert pool.all_failed("up")
    pool.apply(2000, InstanceEvent.READY, 1)
    assert not pool.all_failed("up")


def test_a_port_that_was_given_up_rests_but_not_for_the_service_that_had_it() -> None:
    pool = pool_with(up=1)
    pool.apply(2000, InstanceEvent.DRAINED, 0)
    pool.apply(2000, InstanceEvent.STOPPED, 0)
    pool.remove(2000, 10.0)
    assert pool.plan_growth("web", 1, 10.0) == [range(2001, 2002)]
    assert pool.plan_growth("up", 1, 10.0) == [range(2000, 2001)]
    assert pool.plan_growth("web", 1, 10.0 + PORT_REST_SECONDS) == [range(2000, 2001)]


def test_a_leased_instance_that_is_drained_serves_to_the_end_and_stops() -> None:
    pool = pool_with(up=1)
    lease = grant(pool, "up", ttl=1, now=0)
    assert pool.apply(2000, InstanceEvent.DRAINED, 0).state is InstanceState.DRAINING
    assert pool.renew(lease.id, 0.5)
    pool.end(lease.id, LeaseEvent.RELEASE, 1)
    assert pool.instances[2000].state is InstanceState.STOPPING
    with pytest.raises(Exhausted):
        pool.grant(["up"], ttl=1, key="", now=1)


def test_a_leased_instance_that_does_not_answer_is_restarted_before_the_next_lease() -> None:
    pool = pool_with(up=1)
    lease = pool.grant(["up"], ttl=1, key="", now=0)
    pool.apply(2000, InstanceEvent.DISTRUSTED, 0)
    pool.end(lease.id, LeaseEvent.RELEASE, 1)
    assert pool.instances[2000].state is InstanceState.RECYCLING


def test_a_service_that_is_taken_away_is_not_granted_and_its_leases_end_in_order() -> None:
    pool = pool_with(up=1, web=1)
    lease = pool.grant(["web"], ttl=1, key="", now=0)
    pool.configure(SERVICES[:1])
    with pytest.raises(UnknownService):
        pool.grant(["web"], ttl=1, key="", now=0)
    pool.end(lease.id, LeaseEvent.RELEASE, 1)
    assert pool.instances[2001].state is InstanceState.RECYCLING
    pool.configure(SERVICES)
    pool.apply(2001, InstanceEvent.SPAWNED, 2)
    pool.apply(2001, InstanceEvent.READY, 2)
    assert pool.grant(["web"], ttl=1, key="", now=3)


def test_an_instance_that_died_while_leased_is_restarted_before_the_next_lease() -> None:
    pool = pool_with(up=1)
    lease = pool.grant(["up"], ttl=1, key="", now=0)
    pool.apply(2000, InstanceEvent.LOST, 0.5)
    pool.end(lease.id, LeaseEvent.RELEASE, 1)
    assert pool.instances[2000].state is InstanceState.RECYCLING


def test_the_pool_is_settled_when_nothing_is_on_its_way() -> None:
    pool = pool_with(web=1)
    assert pool.settled()
    lease = pool.grant(["web"], ttl=1, key="", now=0)
    assert pool.settled()
    pool.end(lease.id, LeaseEvent.RELEASE, 1)
    assert not pool.settled()


def test_a_pending_lease_is_neither_renewed_nor_expired_and_can_be_given_back() -> None:
    """Its client was not told of it yet."""
    pool = pool_with(up=1)
    lease = pool.grant(["up"], ttl=1, key="", now=0)
    assert lease.state is LeaseState.PENDING
    assert pool.expired(5) == []
    with pytest.raises(IllegalTransition):
        pool.renew(lease.id, 0.5)
    assert pool.end(lease.id, LeaseEvent.RELEASE, 1).state is LeaseState.RELEASED
    assert pool.idle_count("up") == 1
