"""A lease's workspace: who may enter, when it ends, and the lock in it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from socketpool.credentials.fence import Fence, Tenure
from socketpool.credentials.tokens import LeaseClaim
from socketpool.errors import NotAuthorised, ServiceFailed, TimedOut
from socketpool.rsi.interfaces import NotLocked
from socketpool.rsi.runner import workspace
from socketpool.rsi.runner.workspace import Workspace, WorkspaceLock
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = LeaseClaim("abc123", 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workspaces").mkdir()
    (tmp_path / "trash").mkdir()
    Fence.create(tmp_path / "fence").admit([2000, 2001], CLAIM.generation)
    return tmp_path


def enter(folder: Path, claim: LeaseClaim = CLAIM, port: int = 2000) -> Workspace:
    tenure = Tenure(Fence.open(folder / "fence"), port, claim.generation)
    return workspace.enter(folder / "workspaces", claim, tenure)


def test_each_port_of_the_lease_enters_the_same_private_directory(folder: Path) -> None:
    one, other = enter(folder), enter(folder, port=2001)
    assert one == other
    assert one.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("claim", "port"),
    [
        (CLAIM, 2002),
        (CLAIM._replace(generation=6), 2000),
        (CLAIM._replace(generation=8), 2000),
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
        enter(folder, claim, port)
    assert list((folder / "workspaces").iterdir()) == []


def test_a_workspace_ends_with_the_lease(folder: Path) -> None:
    entered = enter(folder)
    entered.incoming.write_bytes(b"data")
    Fence.create(folder / "fence").bar([2000, 2001])
    workspace.discard(folder / "workspaces", folder / "trash", "abc123")
    assert list((folder / "workspaces").iterdir()) == []
    assert len(list((folder / "trash").iterdir())) == 1
    with pytest.raises(NotAuthorised):
        enter(folder)


def test_a_lease_that_ends_while_its_workspace_is_made_leaves_none(folder: Path) -> None:
    class Ending(Fence):
        """Bars everybody after the first look."""

        looks = 0

        def admits(self, port: int, generation: int) -> bool:
            self.looks += 1
            return super().admits(port, generation) and self.looks == 1

    tenure = Tenure(Ending.open(folder / "fence"), 2000, CLAIM.generation)
    with pytest.raises(NotAuthorised):
        workspace.enter(folder / "workspaces", CLAIM, tenure)
    assert list((folder / "workspaces").iterdir()) == []


def test_a_disk_without_room_is_a_failure_of_the_service(folder: Path) -> None:
    (folder / "workspaces" / "abc123").write_text("in the way")
    with pytest.raises(ServiceFailed, match="workspace"):
        enter(folder)


def test_discarding_twice_or_what_never_was_is_fine(folder: Path) -> None:
    enter(folder)
    for lease_id in ("abc123", "abc123", "never"):
        workspace.discard(folder / "workspaces", folder / "trash", lease_id)
    assert list((folder / "workspaces").iterdir()) == []


def test_the_lock_keeps_others_out_until_it_is_given_back(folder: Path) -> None:
    here = enter(folder)
    one, other = WorkspaceLock(here, wait_seconds=0.1), WorkspaceLock(here, wait_seconds=0.1)
    with one.locked():
        with pytest.raises(TimedOut, match="still at work"):
            other.lock()
        with pytest.raises(NotLocked):
            other.unlock()
        with pytest.raises(TimedOut):
            other.lock()
    with other.locked():
        pass


def test_the_lock_is_re_entrant_and_free_after_as_many_unlocks(folder: Path) -> None:
    here = enter(folder)
    one, other = WorkspaceLock(here, wait_seconds=0.1), WorkspaceLock(here, wait_seconds=0)
    one.lock()
    with one.locked(), one.locked():
        pass
    with pytest.raises(TimedOut):
        other.lock()
    one.unlock()
    with other.locked():
        pass
    with pytest.raises(NotLocked, match="had not locked"):
        one.unlock()


def test_a_step_that_begins_as_its_lease_ends_is_told_so(folder: Path) -> None:
    entered = enter(folder)
    workspace.discard(folder / "workspaces", folder / "trash", "abc123")
    with pytest.raises(NotAuthorised, match="lease has ended"):
        WorkspaceLock(entered, wait_seconds=0).lock()


def test_the_lock_is_given_back_when_the_work_fails(folder: Path) -> None:
    lock = WorkspaceLock(enter(folder), wait_seconds=0.1)
    with pytest.raises(ZeroDivisionError), lock.locked():
        raise ZeroDivisionError
    with lock.locked():
        pass


def test_the_lock_ends_with_the_process_that_holds_it(folder: Path) -> None:
    root = enter(folder).root
    code = (
        "import pathlib, sys, time; from socketpool.rsi.runner.workspace import *;"
        "WorkspaceLock(Workspace(pathlib.Path(sys.argv[1])), wait_seconds=1).lock();"
        "print('locked', flush=True); time.sleep(1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE)
    lock = WorkspaceLock(Workspace(root), wait_seconds=0)

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


def leave(session: Workspace, text: str) -> None:
    """A vendor step's result, as if it were an archive."""
    with session.step() as step:
        step.archive.write_text(text)
        step.outcome = {"told": text}


def at_step(folder: Path, step: str, port: int = 2000) -> Workspace:
    tenure = Tenure(Fence.open(folder / "fence"), port, CLAIM.generation)
    return workspace.enter(folder / "workspaces", CLAIM, tenure, step)


def test_steps_of_one_instance_follow_each_other_and_each_is_kept(folder: Path) -> None:
    first, other, second = (at_step(folder, step * 32) for step in "abc")
    leave(first, "one")
    leave(other, "two")
    assert second.outgoing is not None
    assert second.outgoing.read_text() == "two"
    leave(second, "three")
    assert first.outgoing is not None
    assert first.outgoing.read_text() == "three"
    for number in range(9, 120):  # in the order of their numbers, not of their identities
        leave(at_step(folder, f"{200 - number:032x}"), str(number))
        assert first.outgoing.read_text() == str(number)


def test_an_attempt_at_a_finished_step_is_told_its_outcome_and_takes_nothing_away(
    folder: Path,
) -> None:
    first, other = at_step(folder, "a" * 32), at_step(folder, "b" * 32, port=2001)
    assert first.finished() is None
    leave(first, "one")
    leave(other, "two")
    assert at_step(folder, "a" * 32).finished() == {"told": "one"}
    assert other.outgoing is not None
    assert other.outgoing.read_text() == "two"


def test_a_step_that_fails_midway_leaves_nothing(folder: Path) -> None:
    step = at_step(folder, "a" * 32)

    def fails() -> None:
        with step.step() as result:
            result.archive.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert step.finished() is None
    assert step.outgoing is None


def test_sessions_that_name_no_step_are_one_step_for_each_port(folder: Path) -> None:
    leave(enter(folder), "one")
    assert enter(folder).finished() == {"told": "one"}
    assert enter(folder, port=2001).finished() is None


def test_another_upload_forgets_every_step(folder: Path) -> None:
    for step in "ab":
        leave(at_step(folder, step * 32), step)
    entered = enter(folder)
    entered.forget_steps()
    assert entered.outgoing is None
    assert at_step(folder, "a" * 32).finished() is None
    assert list(entered.root.iterdir()) == []
