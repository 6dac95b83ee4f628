"""The embedded lease store keeps its contract."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.core.records import Grant
from socketpool.errors import StoreError
from socketpool.store.contract import Forget, LeaseRecord, Save
from socketpool.store.sqlite import SqliteLeaseStore

if TYPE_CHECKING:
    from collections.abc import Iterator

GRANTS = (Grant("up", 2000, "up:2000"), Grant("web", 2001, "web.2:2001"))
FIRST = LeaseRecord("a", 1, "acme", "key '; DROP TABLE lease; --", 60.5, 1e9, GRANTS)
SECOND = LeaseRecord("b", 2, "", "", 1.0, 1e9 + 1, GRANTS[:1])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteLeaseStore]:
    made = SqliteLeaseStore(path)
    yield made
    made.close()


def reload(path: Path) -> tuple[list[LeaseRecord], int]:
    store = SqliteLeaseStore(path)
    try:
        return store.load()
    finally:
        store.close()


def test_a_new_store_is_empty(store: SqliteLeaseStore) -> None:
    assert store.load() == ([], 0)


def test_what_was_saved_is_there_after_a_restart(store: SqliteLeaseStore, path: Path) -> None:
    store.commit([Save(SECOND), Save(FIRST)])
    store.close()
    assert reload(path) == ([FIRST, SECOND], 2)


def test_what_was_saved_is_there_after_a_crash(path: Path) -> None:
    """The process ends without closing anything, right after `commit` has returned."""
    code = (
        "import os, sys, pathlib; from socketpool.store.sqlite import SqliteLeaseStore as S;"
        "from socketpool.store.contract import *; from socketpool.core.records import Grant;"
        "s = S(pathlib.Path(sys.argv[1]));"
        "s.commit([Save(LeaseRecord('a', 5, '', '', 1.0, 1.0, (Grant('up', 1, 'up:1'),)))]);"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)
    records, highest = reload(path)
    assert [r.id for r in records] == ["a"]
    assert highest == 5


def test_a_forgotten_lease_is_gone_but_its_generation_counts(
    store: SqliteLeaseStore, path: Path
) -> None:
    store.commit([Save(FIRST), Save(SECOND), Forget("b"), Forget("never was")])
    store.close()
    assert reload(path) == ([FIRST], 2)


def test_saving_again_replaces(store: SqliteLeaseStore) -> None:
    store.commit([Save(FIRST)])
    store.commit([Save(FIRST._replace(ttl=5.0))])
    assert store.load() == ([FIRST._replace(ttl=5.0)], 1)


def test_a_commit_is_all_or_nothing(store: SqliteLeaseStore) -> None:
    store.commit([Save(FIRST)])
    bad = SECOND._replace(generation=1 << 63)
    with pytest.raises(StoreError):
        store.commit([Forget("a"), Save(bad)])
    assert store.load() == ([FIRST], 1)
    store.commit([Save(SECOND)])
    assert store.load() == ([FIRST, SECOND], 2)


@pytest.mark.parametrize(
    "bad",
    [
        FIRST._replace(generation=1 << 64),
        FIRST._replace(ttl=math.nan),
        FIRST._replace(key=b"bytes"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_can_t_be_stored_does_not_block_later_commits(
    store: SqliteLeaseStore, bad: LeaseRecord
) -> None:
    with pytest.raises(StoreError):
        store.commit([Save(bad)])
    store.commit([Save(SECOND)])
    assert store.load() == ([SECOND], 2)


def test_the_last_change_of_a_lease_counts(store: SqliteLeaseStore) -> None:
    store.commit([Forget("a"), Save(FIRST), Save(SECOND), Forget("b")])
    assert store.load() == ([FIRST], 2)


@given(
    key=st.text(st.characters(codec=None)) | st.sampled_from(["\0", "a\0b", "\ud800", "'\"\\"]),
    ttl=st.floats(allow_nan=False, allow_infinity=False),
    created=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_value_comes_back_as_it_was(key: str, ttl: float, created: float) -> None:
    """SQLite reads the JSON in between; nothing of it may be lost or rounded."""
    store = SqliteLeaseStore(Path(":memory:"))
    record = FIRST._replace(key=key, ttl=ttl, created=created)
    store.commit([Save(record)])
    assert store.load() == ([record], 1)
    store.close()


def test_the_file_is_synced_at_each_commit(store: SqliteLeaseStore) -> None:
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_file_that_is_no_database_is_reported(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match=r"leases\.sqlite") as caught:
        SqliteLeaseStore(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "record",
    [
        *("", "nonsense", "{}", "[1]", "7", "null", '"text"'),
        '["a",1,"","",1.0,1.0,7]',
        '["a",1,"","",1.0,1.0,[[]]]',
        '["a",1,"","",1.0,1.0,[{"port": 1}]]',
        '[7,1,"","",1.0,1.0,[]]',
        '["a","x","","",1.0,1.0,[]]',
        '["a",1,"","",1.0,null,[]]',
        '["a",1,"","",1.0,1.0,[],1]',
    ],
)
def test_a_damaged_record_is_reported(store: SqliteLeaseStore, path: Path, record: str) -> None:
    store.commit([Save(FIRST)])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE live SET record = ?", (record,))
    db.close()
    with pytest.raises(StoreError, match=r"leases\.sqlite"):
        store.load()


def test_a_damaged_page_is_reported(store: SqliteLeaseStore, path: Path) -> None:
    store.commit([Save(FIRST._replace(id=f"l{n}", generation=n)) for n in range(500)])
    store.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StoreError):
        reload(path)


def test_a_table_of_another_shape_is_reported(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE live (id TEXT)")
    db.close()
    with pytest.raises(StoreError):
        reload(path)


@pytest.mark.parametrize("folder", ["/proc", "/nonexistent"])
def test_a_folder_that_takes_no_file_is_reported(folder: str) -> None:
    """/proc takes none from root either."""
    with pytest.raises(StoreError):
        SqliteLeaseStore(Path(folder) / "leases.sqlite")


def test_a_disk_that_takes_no_more_is_reported_and_nothing_is_half_done(path: Path) -> None:
    """The limit on a file's size stands for a full disk: SQLite sees a failing write."""
    code = """
import pathlib, resource, signal, sys
from socketpool.core.records import Grant
from socketpool.errors import StoreError
from socketpool.store.contract import LeaseRecord, Save
from socketpool.store.sqlite import SqliteLeaseStore
store = SqliteLeaseStore(pathlib.Path(sys.argv[1]))
store.commit([Save(LeaseRecord("kept", 1, "", "", 1.0, 1.0, (Grant("up", 1, "up:1"),)))])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
try:
    key = "k" * 500
    store.commit([Save(LeaseRecord(f"l{n}", n, "", key, 1.0, 1.0, ())) for n in range(2, 999)])
except StoreError as error:
    assert error.hint
else:
    sys.exit("a commit beyond the limit succeeded")
assert [r.id for r in store.load()[0]] == ["kept"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.commit([Save(LeaseRecord("later", 2, "", "", 1.0, 1.0, ()))])
"""
    subprocess.run([sys.executable, "-c", code, path], check=True)
    assert [r.id for r in reload(path)[0]] == ["kept", "later"]
