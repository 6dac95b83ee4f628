"""Channels are opened side by side, and those that fail learn why.

paramiko keeps one exception for all threads: of two channels refused at once, one is told the
other's reason or none.  So an opening that fails is repeated while no other is under way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Openings:
    """Many at once, or one alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._under_way = 0
        self._alone = False

    def run(self, action: Callable[[], T], failure: type[Exception]) -> T:
        """Do it, and when it fails, once more alone; raises what happened then."""
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._under_way += 1
        try:
            return action()
        except failure:
            pass
        finally:
            with self._condition:
                self._under_way -= 1
                self._condition.notify_all()
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._alone = True
            self._condition.wait_for(lambda: not self._under_way)
        try:
            return action()
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()
