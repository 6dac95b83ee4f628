"""Waiting for a condition with a deadline, in place of sleeping and hoping."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

DEADLINE = 30.0
"""Generous: the machine may be busy with something else.  Nothing is measured by it."""


def eventually(condition: Callable[[], T | None], what: str, seconds: float = DEADLINE) -> T:
    """The condition's first true value; fails the test when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.03)
    return value
