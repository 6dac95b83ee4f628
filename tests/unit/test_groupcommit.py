"""Group commit: one sync for many changes, and nobody hears of a change that isn't durable."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from socketpool.core.records import Grant
from socketpool.errors import StoreError
from socketpool.server.leases.groupcommit import GroupCommit
from socketpool.store.contract import Change, Forget, LeaseRecord, Save
from socketpool.store.sqlite import SqliteLeaseStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def record(number: int) -> LeaseRecord:
    return LeaseRecord(f"l{number}", number, "", "", 60.0, 1e9, (Grant("up", 2000, "up:2000"),))


class GatedStore:
    """A store in memory whose commits wait for a gate, so that a test can watch groups form."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.commits: list[list[Change]] = []
        self.failing: Exception | None = None
        self.closed = False

    def load(self) -> tuple[list[LeaseRecord], int]:
        return [], 0

    def commit(self, changes: Sequence[Change]) -> None:
        self.gate.acquire(timeout=10)
        if self.failing is not None:
            raise self.failing
        self.commits.append(list(changes))

    def close(self) -> None:
        self.closed = True


def write(group_commit: GroupCommit, change: Change) -> asyncio.Future[None]:
    """Done when the change is durable, or failed."""
    done = group_commit.loop.create_future()

    def then(error: StoreError | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    group_commit.write(change, then)
    return done


async def started(*writes: asyncio.Future[None]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(write.done() for write in writes)


def test_changes_during_a_commit_share_the_next() -> None:
    store = GatedStore()

    async def scenario() -> None:
        group_commit = GroupCommit(store, asyncio.get_running_loop())
        first = write(group_commit, Save(record(1)))
        await started(first)
        others = [write(group_commit, Save(record(n))) for n in range(2, 10)]
        await started(first, *others)
        store.gate.release()
        await first
        await started(*others)
        store.gate.release()
        await asyncio.gather(*others)
        await group_commit.close()

    asyncio.run(scenario())
    assert store.commits == [[Save(record(1))], [Save(record(n)) for n in range(2, 10)]]
    assert store.closed


def test_a_failed_commit_fails_all_its_writers_and_only_them() -> None:
    store = GatedStore()

    async def scenario() -> None:
        group_commit = GroupCommit(store, asyncio.get_running_loop())
        first = write(group_commit, Save(record(1)))
        await started(first)
        others = [write(group_commit, Save(record(n))) for n in (2, 3)]
        await started(*others)
        store.gate.release()
        await first
        store.failing = StoreError("the disk is full")
        store.gate.release()
        for other in others:
            with pytest.raises(StoreError, match="full"):
                await other
        store.failing = None
        store.gate.release()
        await write(group_commit, Forget("l1"))
        await group_commit.close()

    asyncio.run(scenario())
    assert store.commits == [[Save(record(1))], [Forget("l1")]]


def test_a_store_that_breaks_its_contract_leaves_nobody_waiting() -> None:
    store = GatedStore()
    store.failing = RuntimeError("a bug")
    store.gate.release()

    async def scenario() -> None:
        group_commit = GroupCommit(store, asyncio.get_running_loop())
        with pytest.raises((StoreError, RuntimeError)):
            await asyncio.wait_for(write(group_commit, Forget("x")), 5)
        store.failing = None
        store.gate.release()
        await asyncio.wait_for(write(group_commit, Forget("y")), 5)
        await group_commit.close()

    asyncio.run(scenario())
    assert store.commits == [[Forget("y")]]


def test_a_writer_that_breaks_does_not_disturb_the_others() -> None:
    store = GatedStore()

    def broken(error: StoreError | None) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        group_commit = GroupCommit(store, asyncio.get_running_loop())
        group_commit.write(Save(record(1)), broken)
        group_commit.write(Save(record(2)), broken)
        three = write(group_commit, Save(record(3)))
        await started(three)
        store.gate.release()
        store.gate.release()
        await three
        await group_commit.close()

    asyncio.run(scenario())
    assert Save(record(3)) in [change for commit in store.commits for change in commit]


def test_closing_finishes_what_was_given() -> None:
    store = GatedStore()

    async def scenario() -> None:
        group_commit = GroupCommit(store, asyncio.get_running_loop())
        written = write(group_commit, Save(record(1)))
        await started(written)
        store.gate.release()
        await group_commit.close()
        await written

    asyncio.run(scenario())
    assert store.commits == [[Save(record(1))]]


def test_many_writers_at_once_end_up_in_sqlite_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        group_commit = GroupCommit(
            SqliteLeaseStore(tmp_path / "leases.sqlite"), asyncio.get_running_loop()
        )
        writes = [write(group_commit, Save(record(n))) for n in range(1, 201)]
        writes += [write(group_commit, Forget(f"l{n}")) for n in range(1, 101)]
        await asyncio.gather(*writes)
        await group_commit.close()

    asyncio.run(scenario())
    store = SqliteLeaseStore(tmp_path / "leases.sqlite")
    records, highest = store.load()
    store.close()
    assert records == [record(n) for n in range(101, 201)]
    assert highest == 200
