"""Slots for sessions, taken by processes that may end in any way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from socketpool.errors import TimedOut
from socketpool.rsi.runner.slots import Slots
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def children() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def hold(slots: Slots, children: list[int]) -> int:
    """A process that takes a slot and keeps it until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            slots.take(30)
            signal.pause()
        finally:
            os._exit(1)
    children.append(pid)
    return pid


def test_a_slot_is_held_until_its_process_ends_however_that_happens(children: list[int]) -> None:
    slots = Slots(2)
    first, second = hold(slots, children), hold(slots, children)
    eventually(lambda: slots.holders() == {first, second}, "both slots to be taken")
    with pytest.raises(TimedOut, match="as many sessions"):
        slots.take(0.05)
    third = hold(slots, children)
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    eventually(lambda: slots.holders() == {second, third}, "the third to follow")


def test_no_slot_is_held_at_first() -> None:
    assert Slots(8).holders() == set()
