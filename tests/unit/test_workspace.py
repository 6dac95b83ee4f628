"""A lease's workspace: who may enter, when it ends, and the lock in it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from waiting import eventually

from socketpool.errors import NotAuthorised, TimedOut
from socketpool.rsi import workspace
from socketpool.rsi.tokens import LeaseClaim
from socketpool.rsi.workspace import Workspace, WorkspaceLock

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = LeaseClaim("abc123", 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workspaces").mkdir()
    (tmp_path / "trash").mkdir()
    workspace.create(tmp_path / "workspaces", CLAIM, [2000, 2001])
    return tmp_path


def test_each_port_of_the_lease_enters_the_same_private_directory(folder: Path) -> None:
    one = workspace.enter(folder / "workspaces", CLAIM, 2000)
    other = workspace.enter(folder / "workspaces", CLAIM, 2001)
    assert one == other
    assert one.alive
    assert one.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("claim", "port"),
    [
        (CLAIM, 2002),
        (CLAIM._replace(generation=6), 2000),
        (CLAIM._replace(generation=8), 2000),
        (CLAIM._replace(lease="other"), 2000),
        (CLAIM._replace(lease=""), 2000),
        (CLAIM._replace(lease=".."), 2000),
        (CLAIM._replace(lease="../workspaces/abc123"), 2000),
        (CLAIM._replace(lease="abc123/"), 2000),
        (CLAIM._replace(lease="abc123\n"), 2000),
        (CLAIM._replace(lease="ABC123"), 2000),
        (CLAIM._replace(lease="a\0"), 2000),
        (CLAIM._replace(lease="a" * 5000), 2000),
    ],
)
def test_nobody_else_enters(folder: Path, claim: LeaseClaim, port: int) -> None:
    with pytest.raises(NotAuthorised, match="ended or is not for this service"):
        workspace.enter(folder / "workspaces", claim, port)


@pytest.mark.parametrize("record", [b"", b"{", b"\xff"])
def test_a_damaged_record_lets_nobody_in(folder: Path, record: bytes) -> None:
    (folder / "workspaces" / "abc123" / "lease.json").write_bytes(record)
    with pytest.raises(NotAuthorised):
        workspace.enter(folder / "workspaces", CLAIM, 2000)


def test_a_discarded_workspace_ends_at_once(folder: Path) -> None:
    entered = workspace.enter(folder / "workspaces", CLAIM, 2000)
    entered.incoming.write_bytes(b"data")
    workspace.discard(folder / "workspaces", folder / "trash", "abc123")
    assert not entered.alive
    assert list((folder / "workspaces").iterdir()) == []
    assert len(list((folder / "trash").iterdir())) == 1
    with pytest.raises(NotAuthorised):
        workspace.enter(folder / "workspaces", CLAIM, 2000)


def test_discarding_twice_or_what_never_was_is_fine(folder: Path) -> None:
    for lease_id in ("abc123", "abc123", "never"):
        workspace.discard(folder / "workspaces", folder / "trash", lease_id)
    assert list((folder / "workspaces").iterdir()) == []


def test_two_leases_of_one_id_are_a_bug_that_shows(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        workspace.create(folder / "workspaces", CLAIM, [2000])
    record = json.loads((folder / "workspaces" / "abc123" / "lease.json").read_text())
    assert record["ports"] == [2000, 2001]


def test_the_lock_keeps_others_out_until_it_is_given_back(folder: Path) -> None:
    here = Workspace(folder / "workspaces" / "abc123")
    one, other = WorkspaceLock(here, patience=0.1), WorkspaceLock(here, patience=0.1)
    with one.locked():
        with pytest.raises(TimedOut, match="still at work"):
            other.lock()
        other.unlock()  # what it does not have, it can't give back
        with pytest.raises(TimedOut):
            other.lock()
    with other.locked():
        pass


def test_a_step_that_begins_as_its_lease_ends_is_told_so(folder: Path) -> None:
    entered = workspace.enter(folder / "workspaces", CLAIM, 2000)
    workspace.discard(folder / "workspaces", folder / "trash", "abc123")
    with pytest.raises(NotAuthorised, match="lease has ended"):
        WorkspaceLock(entered, patience=0).lock()


def test_the_lock_is_given_back_when_the_work_fails(folder: Path) -> None:
    lock = WorkspaceLock(Workspace(folder / "workspaces" / "abc123"), patience=0.1)
    with pytest.raises(ZeroDivisionError), lock.locked():
        raise ZeroDivisionError
    with lock.locked():
        pass


def test_the_lock_ends_with_the_process_that_holds_it(folder: Path) -> None:
    root = folder / "workspaces" / "abc123"
    code = (
        "import pathlib, sys, time; from socketpool.rsi.workspace import *;"
        "WorkspaceLock(Workspace(pathlib.Path(sys.argv[1])), patience=1).lock();"
        "print('locked', flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    lock = WorkspaceLock(Workspace(root), patience=0)

    def free() -> bool:
        try:
            lock.lock()
        except TimedOut:
            return False
        return True

    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert not free()
        process.kill()
        eventually(free, "the lock of a dead process")
        lock.unlock()
