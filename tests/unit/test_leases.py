"""The lease manager, with real store and workspaces, at moments hard to hit from outside."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.config.models import LeaseSettings
from socketpool.config.statedir import StateDir
from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.permissions import OPERATOR, Client
from socketpool.core.pool import Pool
from socketpool.core.ports import PortRange
from socketpool.core.records import Instance, ServicePlan
from socketpool.credentials.fence import Fence
from socketpool.credentials.tokens import LeaseTokens
from socketpool.errors import (
    KeyReused,
    NoCapacity,
    NoSuchLease,
    NotAuthorised,
    QuotaExceeded,
    ServiceUnknown,
    StoreError,
    UsageError,
)
from socketpool.server.leases.groupcommit import GroupCommit
from socketpool.server.leases.leasemanager import LeaseManager
from socketpool.server.leases.recovery import live_leases, sweep, workspaces_on_disk
from socketpool.server.leases.terms import LeaseTerms
from socketpool.store.sqlite import SqliteLeaseStore
from socketpool.supervision.rpc import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from socketpool.core.records import Lease
    from socketpool.store.contract import Change


class GatedStore(SqliteLeaseStore):
    """The real store; a test may close a gate before its commits, or have them fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def commit(self, changes: Sequence[Change]) -> None:
        assert self.gate.wait(10)
        if self.fails:
            raise StoreError("the disk is full")
        super().commit(changes)


class House:
    """A lease manager and all it works with, on one idle instance of ``up``."""

    def __init__(self, folder: Path) -> None:
        ids = map(str, itertools.count(1))
        self.state = StateDir(folder)
        self.state.prepare()
        self.store = GatedStore(self.state.store)
        self.fence = Fence.create(self.state.fence)
        self.group_commit = GroupCommit(self.store, asyncio.get_running_loop())
        self.pool = Pool(
            [ServicePlan("up", 1, 4, restart=False), ServicePlan("down", 1, 4, restart=False)],
            PortRange(2000, 2010),
            max_age=3600,
            new_id=lambda: next(ids),
        )
        self.pool.add(Instance("up", 2000, "up", InstanceState.IDLE))
        self.manager = LeaseManager(
            self.pool,
            self.state,
            self.group_commit,
            self.fence,
            LeaseTokens("key"),
            LeaseSettings(),
            {"small": Client("small", frozenset({"up"}), leases=1, waiting=1, ttl=5)},
            wanted=lambda: None,
            refusal=self.refusal,
        )

    def refusal(self, service: str) -> NoCapacity | None:
        if service not in self.pool.services:
            return NoCapacity("was taken out")
        return NoCapacity("all failed to start") if self.pool.all_failed(service) else None

    def ask(
        self, *services: str, key: str = "", wait: float = 0, client: str = OPERATOR
    ) -> asyncio.Task[Lease]:
        ask = LeaseTerms(services or ("up",), 60, key, wait, client)
        return asyncio.create_task(self.manager.acquire(ask))

    def becomes_idle(self) -> None:
        port = max(self.pool.instances) + 1
        self.pool.add(Instance("up", port, "up"))
        self.pool.apply(port, InstanceEvent.READY, 0)
        self.manager.serve_waiting()

    def admits(self, lease: Lease) -> bool:
        return all(self.fence.admits(g.port, lease.generation) for g in lease.grants)


@pytest.fixture
def within(tmp_path: Path) -> Callable[[Callable[[House], Awaitable[Any]]], None]:
    """Runs a scenario in an event loop, with a house that is closed after it."""

    def run(scenario: Callable[[House], Awaitable[Any]]) -> None:
        async def body() -> None:
            house = House(tmp_path)
            try:
                async with asyncio.timeout(20):
                    await scenario(house)
            finally:
                house.store.gate.set()
                await house.group_commit.close()

        asyncio.run(body())

    return run


async def a_moment() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_lease_is_in_the_store_before_anybody_hears_of_it(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.gate.clear()
        asked = house.ask()
        await a_moment()
        assert not asked.done()
        (born,) = house.pool.leases.values()
        assert not house.admits(born)
        house.store.gate.set()
        lease = await asked
        assert [record.id for record in house.store.load()[0]] == [lease.id]
        assert house.admits(lease)

    within(scenario)


def test_a_lease_that_is_being_granted_can_t_be_seen_or_ended_by_others(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.gate.clear()
        asked = house.ask()
        await a_moment()
        (born,) = house.pool.leases
        assert house.manager.live() == []
        with pytest.raises(NoSuchLease):
            house.manager.renew(born)
        with pytest.raises(NoSuchLease):
            house.manager.release(born)
        house.store.gate.set()
        lease = await asked
        assert house.manager.live() == [lease]
        house.manager.release(lease.id)
        assert house.manager.live() == []
        assert not house.admits(lease)

    within(scenario)


def test_a_lease_just_granted_to_who_waited_does_not_disturb_the_list(within: Any) -> None:
    """Between the grant and the moment in which the waiting task goes on, others may look."""

    async def scenario(house: House) -> None:
        await house.ask()
        waiting = house.ask(wait=10)
        await a_moment()
        house.becomes_idle()
        for lease in house.manager.live():
            assert house.manager.created(lease) > 0
        second = await waiting
        assert second in house.manager.live()

    within(scenario)


def test_a_store_that_fails_grants_nothing_and_takes_nothing(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.fails = True
        with pytest.raises(StoreError, match="full"):
            await house.ask()
        assert house.pool.leases == {}
        assert house.pool.idle_count("up") == 1
        assert not any(house.fence.admits(2000, generation) for generation in range(1, 9))
        house.store.fails = False
        assert (await house.ask()).grants[0].port == 2000

    within(scenario)


def test_a_release_that_can_t_be_stored_is_still_a_release(within: Any) -> None:
    async def scenario(house: House) -> None:
        lease = await house.ask()
        house.store.fails = True
        house.manager.release(lease.id)
        await a_moment()
        assert house.pool.idle_count("up") == 1
        processes = [ProcessInfo("up", "2000", "RUNNING", 1, "")]
        records, _ = house.store.load()
        assert [record.id for record in records] == [lease.id]
        assert live_leases(records, processes, house.fence) == []

    within(scenario)


def test_who_asks_with_one_key_at_the_same_time_gets_one_lease(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.gate.clear()
        asked = [house.ask(key="k") for _ in range(5)]
        await a_moment()
        asked[0].cancel()  # the first client goes; the others must not notice
        await a_moment()
        house.store.gate.set()
        leases = await asyncio.gather(*asked[1:])
        assert len({lease.id for lease in leases}) == 1
        assert (await house.ask(key="k")).id == leases[0].id

    within(scenario)


def test_a_key_of_another_request_is_refused_even_while_that_waits(within: Any) -> None:
    async def scenario(house: House) -> None:
        await house.ask()
        waiting = house.ask(key="k", wait=10)
        await a_moment()
        other = house.ask("down", key="k")
        await a_moment()
        house.becomes_idle()
        await waiting
        with pytest.raises(KeyReused):
            await other

    within(scenario)


def test_waiting_ends_after_the_time_the_client_gave(within: Any) -> None:
    async def scenario(house: House) -> None:
        await house.ask()
        with pytest.raises(NoCapacity, match="up"):
            await house.ask(wait=0.05)
        assert len(house.manager.queue) == 0
        house.becomes_idle()
        assert house.pool.idle_count("up") == 1, "nothing was granted to who had left"

    within(scenario)


def test_who_is_cancelled_while_waiting_gets_nothing(within: Any) -> None:
    async def scenario(house: House) -> None:
        await house.ask()
        waiting = house.ask(wait=10)
        await a_moment()
        waiting.cancel()
        await a_moment()
        house.becomes_idle()
        assert house.pool.idle_count("up") == 1

    within(scenario)


def test_a_lease_whose_client_waited_and_hung_up_before_it_was_durable_ends(within: Any) -> None:
    async def scenario(house: House) -> None:
        first = await house.ask()
        waited = house.ask(key="k", wait=10)
        await a_moment()
        house.store.gate.clear()
        house.manager.release(first.id)
        (lease,) = house.pool.leases.values()
        waited.cancel()
        house.store.gate.set()
        while house.pool.leases:
            await asyncio.sleep(0.01)
        assert not house.admits(lease)
        assert (await house.ask()).id != lease.id

    within(scenario)


def test_a_lease_served_at_once_is_there_for_who_hung_up_and_asks_again(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.gate.clear()
        asked = house.ask(key="k")
        await a_moment()
        asked.cancel()
        await a_moment()
        house.store.gate.set()
        lease = await house.ask(key="k")
        assert lease.generation == 1
        assert house.admits(lease)

    within(scenario)


def test_who_asks_again_before_the_first_hang_up_was_noticed_keeps_the_lease(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.store.gate.clear()
        asked, again = house.ask(key="k"), house.ask(key="k")
        await a_moment()
        asked.cancel()
        await a_moment()
        house.store.gate.set()
        lease = await again
        assert house.admits(lease)
        assert house.manager.get(lease.id) == lease

    within(scenario)


@pytest.mark.parametrize("leaves", ["hangs up", "has waited long enough"])
def test_who_stood_behind_one_that_wanted_more_is_served_when_that_one_leaves(
    within: Any, leaves: str
) -> None:
    async def scenario(house: House) -> None:
        wanted_more = house.ask("up", "up", wait=10 if leaves == "hangs up" else 0.2)
        await a_moment()
        behind = house.ask(wait=300)
        await a_moment()
        assert not behind.done()
        if leaves == "hangs up":
            wanted_more.cancel()
        assert (await behind).grants[0].port == 2000
        assert wanted_more.done()

    within(scenario)


def test_an_unknown_service_is_refused_before_anything_else(within: Any) -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(ServiceUnknown) as caught:
            await house.ask("up", "nope", wait=10)
        assert caught.value.hint == "known services: down, up"
        assert house.pool.idle_count("up") == 1

    within(scenario)


def test_after_a_restart_live_leases_are_those_the_fence_admits_at_all_instances(
    within: Any,
) -> None:
    async def scenario(house: House) -> None:
        house.becomes_idle()
        house.becomes_idle()
        kept, barred, without_instance = [await house.ask() for _ in range(3)]
        house.fence.bar(grant.port for grant in barred.grants)
        ports = {g.port for lease in (kept, barred) for g in lease.grants}
        processes = [ProcessInfo("up", str(port), "RUNNING", 1, "") for port in ports]
        live = live_leases(house.store.load()[0], processes, house.fence)
        assert [record.id for record in live] == [kept.id]
        house.manager.restore(live, 0)
        assert house.admits(kept)
        assert not house.admits(without_instance)

    within(scenario)


@pytest.mark.parametrize(
    ("clock_jumped_by", "left"), [(0, 60), (10 * 86400, 0), (-10 * 86400, 60), (3590, 10)]
)
def test_a_wall_clock_that_jumped_between_two_servers_can_only_shorten_a_lease_s_maximum_age(
    within: Any, monkeypatch: pytest.MonkeyPatch, clock_jumped_by: float, left: float
) -> None:
    """Leases of a server live by the monotonic clock; two servers share the wall clock alone."""

    async def scenario(house: House) -> None:
        lease = await house.ask()
        assert lease.until - lease.expires == pytest.approx(house.manager.limits.max - 60)
        true_time = time.time
        monkeypatch.setattr(time, "time", lambda: true_time() + clock_jumped_by)
        house.manager.expire()
        assert house.manager.live() == [lease], "while the server runs, the wall clock is nothing"
        restarted = Pool(
            house.pool.services.values(), PortRange(2000, 2010), max_age=3600, new_id=lambda: "x"
        )
        restarted.add(Instance("up", 2000, "up", InstanceState.LEASED))
        manager = LeaseManager(
            restarted,
            house.state,
            house.group_commit,
            house.fence,
            LeaseTokens("key"),
            LeaseSettings(),
            {},
            wanted=lambda: None,
        )
        manager.restore(house.store.load()[0], 100.0)
        (again,) = manager.live()
        assert again.id == lease.id
        assert again.expires - 100 == pytest.approx(left, abs=5)
        assert again.until - 100 <= house.manager.limits.max

    within(scenario)


def test_workspaces_of_ended_leases_are_swept_and_those_of_live_ones_kept(within: Any) -> None:
    async def scenario(house: House) -> None:
        lease = await house.ask()
        for name in (lease.id, "stray"):
            (house.state.workspaces / name).mkdir()
        sweep(house.state, workspaces_on_disk(house.state), house.pool.leases.__contains__)
        assert workspaces_on_disk(house.state) == [lease.id]

    within(scenario)


def test_a_client_is_held_to_its_services_quotas_and_time_to_live(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.becomes_idle()
        house.becomes_idle()
        with pytest.raises(NotAuthorised, match="may not lease 'down'"):
            await house.ask("down", client="small")
        lease = await house.ask(client="small")
        assert lease.ttl == 5
        with pytest.raises(QuotaExceeded, match="1 leases"):
            await house.ask(client="small")
        assert (await house.ask()).ttl == 60, "the operator has no quota"

    within(scenario)


def test_a_client_at_its_quota_waits_until_one_of_its_leases_ends(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.becomes_idle()
        first = await house.ask(client="small")
        second = house.ask(client="small", wait=10)
        await a_moment()
        assert not second.done()
        assert house.manager.queue.demand() == {}, "nothing is started for it"
        house.manager.release(first.id, "small")
        assert (await second).client == "small"

    within(scenario)


def test_requests_for_more_than_the_pool_has_ports_are_refused_at_once(within: Any) -> None:
    async def scenario(house: House) -> None:
        plans = (ServicePlan(name, 1, 50, restart=False) for name in ("up", "down"))
        house.pool.configure(plans)
        with pytest.raises(UsageError, match="11 ports"):
            await house.ask(*["up"] * 6, *["down"] * 6, wait=10)

    within(scenario)


def test_requests_that_waited_are_held_to_the_quota_too(within: Any) -> None:
    async def scenario(house: House) -> None:
        await house.ask()
        first = house.ask(client="small", wait=10)
        await a_moment()
        with pytest.raises(QuotaExceeded, match="waiting"):
            await house.ask(client="small", wait=10)
        house.becomes_idle()
        await first
        assert len(house.manager.live("small")) == 1

    within(scenario)


def test_a_client_sees_and_ends_only_its_own_leases(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.becomes_idle()
        others, own = await house.ask(), await house.ask(client="small")
        assert house.manager.live("small") == [own]
        for act in (house.manager.get, house.manager.renew, house.manager.release):
            with pytest.raises(NoSuchLease):
                act(others.id, "small")
        house.manager.release(own.id, "small")
        assert house.manager.live() == [others]

    within(scenario)


def test_the_same_key_of_two_clients_is_two_keys(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.becomes_idle()
        one, other = await house.ask(key="k"), await house.ask(key="k", client="small")
        assert one.id != other.id

    within(scenario)


def test_a_story_tells_what_was_waited_for_granted_and_how_it_ended(within: Any) -> None:
    async def scenario(house: House) -> None:
        first = await house.ask()
        waiting = house.ask(wait=10)
        await a_moment()
        house.manager.release(first.id)
        lease = await waiting
        house.manager.renew(lease.id)
        history = house.manager.histories.find(lease.id)
        assert history is not None
        assert (history.ahead, history.lease, history.renewals, history.how) == (0, lease, 1, "")
        house.manager.release(lease.id)
        assert history.how == "release"
        assert history.ended >= history.decided >= history.asked

    within(scenario)


def test_a_refusal_bears_a_reference_to_its_story(within: Any) -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(ServiceUnknown) as caught:
            await house.ask("nope")
        history = house.manager.histories.find(caught.value.reference)
        assert history is not None
        assert history.refusal == caught.value.message

    within(scenario)


def test_a_service_that_has_only_failed_instances_is_not_waited_for(within: Any) -> None:
    async def scenario(house: House) -> None:
        house.pool.add(Instance("down", 2005, "down"))
        waiting = house.ask("down", wait=300)
        await a_moment()
        assert not waiting.done()
        house.pool.apply(2005, InstanceEvent.OVERDUE, 0)
        house.manager.serve_waiting()
        with pytest.raises(NoCapacity, match="failed to start"):
            await waiting
        with pytest.raises(NoCapacity, match="failed to start"):
            await house.ask("down", wait=300)

    within(scenario)


def test_a_service_taken_away_while_someone_waits_for_it_is_refused(within: Any) -> None:
    async def scenario(house: House) -> None:
        waiting = house.ask("down", wait=300)
        await a_moment()
        house.pool.configure([ServicePlan("up", 1, 4, restart=False)])
        house.manager.serve_waiting()
        with pytest.raises(NoCapacity, match="was taken out"):
            await waiting

    within(scenario)


def test_a_lease_that_has_ended_is_told_as_none(within: Any) -> None:
    """An answer may be made just after the end, when the disk took longer than the lease."""

    async def scenario(house: House) -> None:
        lease = await house.ask()
        assert house.manager.created(lease) <= time.time()
        house.manager.release(lease.id)
        with pytest.raises(NoSuchLease):
            house.manager.created(lease)

    within(scenario)
