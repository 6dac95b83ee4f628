"""The lease manager with its real store and fence, against a model, in any order of events.

Requests of several clients, hang-ups, renewals, time, failing commits, instances that come, die and
are drained, services that are taken away, and crashes of the server between any two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import weakref
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from socketpool.config.models import LeaseSettings
from socketpool.config.statedir import StateDir
from socketpool.core.lifecycle import HELD, INSTANCE, InstanceEvent, InstanceState
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
    ServiceForbidden,
    ServiceUnknown,
    StoreError,
)
from socketpool.server.leases.groupcommit import GroupCommit
from socketpool.server.leases.leasemanager import LeaseManager
from socketpool.server.leases.recovery import live_leases, sweep, workspaces_on_disk
from socketpool.server.leases.requests import ClientGone
from socketpool.server.leases.terms import LeaseTerms
from socketpool.store.contract import Forget
from socketpool.store.sqlite import SqliteLeaseStore
from socketpool.supervision.rpc import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from socketpool.core.records import Lease
    from socketpool.store.contract import Change

T = TypeVar("T")

MAX_AGE = 600.0
PORTS = PortRange(2000, 2009)
MEMORY = Path("/dev/shm")
"""Where a sync costs nothing."""
PLANS = (ServicePlan("sdk", 1, 4, restart=False), ServicePlan("plain", 1, 3, restart=True))
CLIENTS = {
    "small": Client("small", frozenset({"sdk"}), leases=1, waiting=1, ttl=20.0),
    "large": Client("large", leases=3, waiting=2),
}
NAMES = (OPERATOR, *CLIENTS)
ASKED = (("sdk",), ("plain",), ("sdk", "plain"), ("plain", "sdk"), ("sdk", "sdk"))
STARTS = (InstanceState.REGISTERED, InstanceState.STARTING, InstanceState.IDLE)
OUTSIDE = (
    *(InstanceEvent.READY, InstanceEvent.LOST, InstanceEvent.OVERDUE, InstanceEvent.SPAWNED),
    *(InstanceEvent.DISTRUSTED, InstanceEvent.DRAINED, InstanceEvent.RESUMED),
    InstanceEvent.STOPPED,
)
REFUSALS = (NoCapacity, KeyReused, ServiceForbidden, ServiceUnknown, StoreError, ClientGone)


class FailingStore(SqliteLeaseStore):
    """The real store, which a test can have fail."""

    fails = False

    def commit(self, changes: Sequence[Change]) -> None:
        if self.fails:
            raise StoreError("the disk is full")
        super().commit(changes)


class SlowDisk:
    """Replaces the queue of the group commit to its thread: works when it is told to."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self.hangs = False
        self._group_commit = group_commit
        self._work: list[Any] = []

    def put(self, batch: Any) -> None:
        self._work.append(batch)

    def go_on(self) -> bool:
        """Do a piece of work; False when there is none, or the disk hangs."""
        if self.hangs or not self._work:
            return False
        self._group_commit._commit(self._work.pop(0))
        return True


class MovedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until it is moved on."""

    now = 0.0

    def time(self) -> float:
        return self.now


class LeaseMachine(RuleBasedStateMachine):
    """One state directory through the lives of many servers."""

    def __init__(self) -> None:
        super().__init__()
        folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
        # Also for a machine that hypothesis gives up on the way.
        self.clean_up = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.state = StateDir(Path(folder) / "s")
        self.state.prepare()
        self.now = 0.0
        self.highest = 0  # generation that a client was told
        self.ids = map(str, itertools.count(1))
        self.told: dict[str, Lease] = {}  # what clients were told and hold to be theirs
        self.asking: dict[asyncio.Task[Lease], LeaseTerms] = {}
        self.hung_up: dict[asyncio.Task[Lease], asyncio.Event] = {}
        self.begin([])
        self.grow("sdk", 2)
        self.grow("plain", 1)

    def begin(self, instances: list[Instance]) -> None:
        """A server starts on what is there."""
        self.loop = MovedLoop()
        self.loop.now = self.now
        self.store = FailingStore(self.state.store)
        self.fence = Fence.create(self.state.fence)
        self.group_commit = GroupCommit(self.store, self.loop)
        self.group_commit._batches.put(None)  # its thread ends
        self.group_commit._thread.join()  # before its queue is replaced: it might read the new one
        self.disk = SlowDisk(self.group_commit)
        self.group_commit._batches = self.disk  # type: ignore[assignment]
        self.pool = Pool(PLANS, PORTS, max_age=MAX_AGE, new_id=lambda: next(self.ids))
        self.manager = LeaseManager(
            self.pool,
            self.state,
            self.group_commit,
            self.fence,
            LeaseTokens("key"),
            LeaseSettings(max=MAX_AGE),
            CLIENTS,
            wanted=lambda: None,
            refusal=self.refusal,
        )
        records, self.pool.generation = self.store.load()
        processes = [ProcessInfo(i.block, str(i.port), "RUNNING", 1, "") for i in instances]
        live = live_leases(records, processes, self.fence)
        held = {grant.port for record in live for grant in record.grants}
        self.store.commit([Forget(r.id) for r in records if r not in live])
        for instance in instances:
            state = InstanceState.LEASED if instance.port in held else InstanceState.STARTING
            self.pool.add(Instance(instance.service, instance.port, instance.block, state))
        self.manager.restore(live, self.loop.now)

    def refusal(self, service: str) -> NoCapacity | None:
        known = service in self.pool.services
        return None if known else NoCapacity(f"{service} was taken out of the pool")

    def end(self) -> None:
        """The server is no more; who asked it something has lost the connection."""
        for task in self.asking:
            task.cancel()
        self.loop.run_until_complete(self.last_words())
        self.disk.hangs = False
        closing = self.loop.create_task(self.group_commit.close())
        while not closing.done():
            self.settle()
        self.now = self.loop.now
        self.loop.close()
        self.fence.close()

    async def last_words(self) -> None:
        await asyncio.gather(*self.asking, return_exceptions=True)
        self.asking.clear()

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """What the manager does at one moment of its loop."""

        async def within() -> T:
            return function(*arguments)

        return self.loop.run_until_complete(within())

    def settle(self) -> None:
        """Let everything happen that can, and note what clients are told."""

        async def moments() -> None:
            while True:
                for _ in range(20):
                    await asyncio.sleep(0)
                if not self.disk.go_on():
                    return

        self.loop.run_until_complete(moments())
        for task in [task for task in self.asking if task.done()]:
            ask = self.asking.pop(task)
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or isinstance(error, REFUSALS):
                continue
            assert error is None, error
            self.hear(ask, task.result())

    def hear(self, ask: LeaseTerms, lease: Lease) -> None:
        assert tuple(grant.service for grant in lease.grants) == ask.services
        assert (lease.client, lease.key) == (ask.client, ask.key)
        for other in self.told.values():
            if ask.key and (other.client, other.key) == (ask.client, ask.key):
                assert other.id == lease.id, "one key, one lease"
        self.highest = max(self.highest, lease.generation)
        if lease.id in self.pool.leases:
            self.told[lease.id] = lease

    # -- what clients do ---------------------------------------------------------------------

    @rule(
        client=st.sampled_from(NAMES),
        services=st.sampled_from(ASKED),
        key=st.sampled_from(["", "", "a", "b"]),
        wait=st.sampled_from([0.0, 0.0, 30.0]),
        ttl=st.sampled_from([1.0, 60.0, 10 * MAX_AGE]),
    )
    def ask(
        self, client: str, services: tuple[str, ...], key: str, wait: float, ttl: float
    ) -> None:
        gone = asyncio.Event()

        async def hung_up() -> None:
            await gone.wait()

        ask = LeaseTerms(services, ttl, key, wait, client)
        task = self.loop.create_task(self.manager.acquire(ask, hung_up))
        self.asking[task] = ask
        self.hung_up[task] = gone
        self.settle()

    @rule(client=st.sampled_from(NAMES), key=st.sampled_from(["", "a"]))
    def ask_for_one(self, client: str, key: str) -> None:
        self.ask(client, ("sdk",), key, 0.0, 60.0)

    @rule(client=st.sampled_from(NAMES), services=st.sampled_from(ASKED))
    def ask_and_wait(self, client: str, services: tuple[str, ...]) -> None:
        self.ask(client, services, "", 300.0, 60.0)

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        task = list(self.asking)[data.draw(st.integers(0, len(self.asking) - 1), "request")]
        self.hung_up[task].set()
        self.settle()

    @precondition(lambda self: self.told)
    @rule(data=st.data(), act=st.sampled_from(["renew", "release"]))
    def use_a_lease(self, data: st.DataObject, act: str) -> None:
        lease = self.told[data.draw(st.sampled_from(sorted(self.told)), "lease")]
        lives = lease.id in self.pool.leases
        for thief in {*CLIENTS} - {lease.client}:
            for steal in (self.manager.get, self.manager.renew, self.manager.release):
                with contextlib.suppress(NoSuchLease):
                    raise AssertionError(self.call(steal, lease.id, thief))
        try:
            if act == "renew":
                renewed = self.call(self.manager.renew, lease.id, lease.client)
                assert renewed.expires == min(self.loop.now + lease.ttl, renewed.until)
            else:
                self.call(self.manager.release, lease.id, lease.client)
                del self.told[lease.id]
        except NoSuchLease:
            assert not lives
            del self.told[lease.id]
        self.settle()

    # -- what happens to instances -----------------------------------------------------------

    @rule(service=st.sampled_from(["sdk", "plain"]), count=st.integers(1, 2))
    def grow(self, service: str, count: int) -> None:
        if service not in self.pool.services:
            return
        for run in self.pool.plan_growth(service, count, self.loop.now):
            for port in run:
                self.pool.add(Instance(service, port, f"{service}.{port}"))
                self.pool.apply(port, InstanceEvent.READY, self.loop.now)
        self.call(self.manager.serve_waiting)
        self.settle()

    @precondition(lambda self: self.pool.instances)
    @rule(data=st.data())
    def something_happens_to_an_instance(self, data: st.DataObject) -> None:
        port = data.draw(st.sampled_from(sorted(self.pool.instances)), "port")
        state = self.pool.instances[port].state
        possible = [event for event in OUTSIDE if INSTANCE.allows(state, event)]
        if state is InstanceState.STOPPED:
            self.pool.remove(port, self.loop.now)
        elif possible:
            event = data.draw(st.sampled_from(possible), "event")
            self.pool.apply(port, event, self.loop.now)
        self.call(self.manager.serve_waiting)
        self.settle()

    @rule(gone=st.sampled_from(["", "", "sdk", "plain"]))
    def reload(self, gone: str) -> None:
        self.pool.configure(plan for plan in PLANS if plan.name != gone)
        self.call(self.manager.serve_waiting)
        self.settle()

    # -- time and faults ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 2.0, 40.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.now += seconds
        self.settle()
        self.call(self.manager.expire)
        self.settle()
        for lease_id, lease in list(self.told.items()):
            if lease_id not in self.pool.leases:
                del self.told[lease_id]
                assert not self.admits(lease)

    @rule()
    def instances_recover(self) -> None:
        """Whatever is not leased goes the shortest way to being idle."""
        ways = (InstanceEvent.SPAWNED, InstanceEvent.RESUMED, InstanceEvent.READY)
        for port in list(self.pool.instances):
            for event in (*ways, *ways):
                instance = self.pool.instances[port]
                known = instance.service in self.pool.services and instance.state not in HELD
                if known and INSTANCE.allows(instance.state, event):
                    self.pool.apply(port, event, self.loop.now)
        self.call(self.manager.serve_waiting)
        self.settle()

    @rule(fails=st.sampled_from([False, False, True]))
    def the_disk_fills_up_or_has_room(self, fails: bool) -> None:
        self.store.fails = fails

    @rule(hangs=st.sampled_from([False, False, True]))
    def the_disk_hangs_or_goes_on(self, hangs: bool) -> None:
        self.disk.hangs = hangs
        self.settle()

    @rule()
    def workspaces_are_swept(self) -> None:
        sweep(self.state, workspaces_on_disk(self.state), self.pool.leases.__contains__)

    @rule(crash=st.booleans())
    def the_server_restarts(self, crash: bool) -> None:
        before = {i: lease for i, lease in self.told.items() if i in self.pool.leases}
        if crash:
            self.store.fails = True  # what hangs or waits there gets nowhere any more
        self.end()
        self.store.fails = False
        instances = [
            i for i in self.pool.instances.values() if i.state is not InstanceState.STOPPED
        ]
        self.begin(instances)
        self.instances_recover()
        assert before.keys() <= self.pool.leases.keys(), "what a client was told is kept"
        self.told = before

    def teardown(self) -> None:
        """At the end all leases run out, and everything is free, and stored so."""
        try:
            self.store.fails = False
            self.disk.hangs = False
            for _ in range(60):  # those who waited are granted what the first ones had
                if not self.pool.leases and not len(self.manager.queue):
                    break
                self.settle()
                self.loop.now += 2 * MAX_AGE
                self.settle()
                self.call(self.manager.expire)
            self.settle()
            assert self.pool.leases == {}
            assert not any(i.state in HELD for i in self.pool.instances.values())
            assert self.admitted() == set()
        finally:
            self.end()
        self.begin([])  # and what could not be stored is made up for
        assert self.pool.leases == {}
        assert self.store.load()[0] == []
        assert self.pool.generation >= self.highest
        self.end()
        self.clean_up()

    # -- what always holds -------------------------------------------------------------------

    def admitted(self) -> set[int]:
        generations = range(1, self.pool.generation + 1)
        return {p for p in PORTS if any(self.fence.admits(p, g) for g in generations)}

    def admits(self, lease: Lease) -> bool:
        return any(self.fence.admits(g.port, lease.generation) for g in lease.grants)

    @invariant()
    def no_instance_is_leased_twice_and_none_is_lost(self) -> None:
        held = [grant.port for lease in self.pool.leases.values() for grant in lease.grants]
        assert len(held) == len(set(held))
        assert set(held) == {p for p, i in self.pool.instances.items() if i.state in HELD}

    @invariant()
    def the_fence_admits_who_was_told_and_nobody_else(self) -> None:
        live = {lease.id: lease for lease in self.manager.live()}
        assert live.keys() <= self.pool.leases.keys()
        for lease in self.told.values():
            assert self.admits(lease) == (lease.id in live)
        assert self.admitted() == {g.port for lease in live.values() for g in lease.grants}

    @invariant()
    def what_a_client_was_told_is_in_the_store(self) -> None:
        if not self.disk.hangs:
            assert self.told.keys() & self.pool.leases.keys() <= {
                r.id for r in self.store.load()[0]
            }

    @invariant()
    def nobody_has_more_than_its_quota(self) -> None:
        for client in CLIENTS.values():
            mine = [lease for lease in self.pool.leases.values() if lease.client == client.name]
            assert len(mine) == self.pool.count_of(client.name)
            assert client.leases is not None
            assert len(mine) <= client.leases
            assert client.ttl is None or all(lease.ttl <= client.ttl for lease in mine)
            assert all(client.may_lease(g.service) for lease in mine for g in lease.grants)
            assert client.waiting is not None
            assert self.manager.queue.count_of(client.name) <= client.waiting

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        """Whoever could be served lacks something, or it is reserved for those before."""
        reserved, before = Counter[str](), Counter[str]()
        for waiter in self.manager.queue._waiters:
            allowed = CLIENTS[waiter.client].leases if waiter.client in CLIENTS else None
            if allowed is not None:
                allowed -= self.pool.count_of(waiter.client)
                if allowed <= before[waiter.client]:
                    continue
            if waiter.needs.keys() <= self.pool.services.keys() and all(
                self.pool.reach(s) >= n for s, n in waiter.needs.items()
            ):
                assert any(
                    self.pool.idle_count(s) < reserved[s] + n for s, n in waiter.needs.items()
                ), waiter.services
                reserved.update(waiter.needs)
                before[waiter.client] += 1

    @invariant()
    def the_queue_counts_only_who_asks(self) -> None:
        waiting = sum(not task.done() for task in self.asking)
        assert len(self.manager.queue) <= waiting
        assert not self.manager.queue.demand() or waiting

    @invariant()
    def no_generation_is_used_twice(self) -> None:
        generations = [lease.generation for lease in self.pool.leases.values()]
        assert len(generations) == len(set(generations))


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
