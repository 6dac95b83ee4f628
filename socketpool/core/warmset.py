"""How many instances of a service there should be, from how it was used of late.

Pure arithmetic over two figures that cost nothing to keep: the rate of leases, as a count that
decays exponentially, and the largest number of instances that was needed at a time, as a maximum
over a sliding window of two halves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RATE_SECONDS = 10.0
"""How far back the rate of leases looks: the time constant of its decay."""

START_WEIGHT = 0.3
"""The share of the newest start in the average duration of a start."""


class Usage:
    """What is remembered of one service's use.  Times are monotonic seconds.

    ``window`` is how long a need is remembered at least; at most it is twice that.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        self._count = 0.0
        self._counted_at = 0.0
        self._start_seconds = 1.0
        self._started_any = False
        self._halves = (0, 0)
        self._half_since = 0.0

    def note_lease(self, held: int, now: float) -> None:
        """An instance was leased; ``held`` are leased now."""
        self._count = self._decayed(now) + 1.0
        self._counted_at = now
        self.note_need(held, now)

    def note_need(self, instances: int, now: float) -> None:
        """So many instances are needed now, and may be again within the window."""
        self._turn(now)
        before, current = self._halves
        self._halves = (before, max(current, instances))

    def note_start(self, seconds: float) -> None:
        """An instance took so long from its start until it was ready."""
        weight = START_WEIGHT if self._started_any else 1.0
        self._start_seconds += weight * (seconds - self._start_seconds)
        self._started_any = True

    def peak(self, now: float) -> int:
        """The most instances that were needed at a time within the window."""
        self._turn(now)
        return max(self._halves)

    def ahead(self, now: float) -> int:
        """The leases to expect while one instance starts, as the recent rate goes on.

        No more than were ever held at a time: a client that leases and releases in a loop needs
        one instance, however fast it is.
        """
        rate = self._decayed(now) / RATE_SECONDS
        return min(round(rate * self._start_seconds), self.peak(now))

    def _decayed(self, now: float) -> float:
        return self._count * math.exp(min(0.0, self._counted_at - now) / RATE_SECONDS)

    def _turn(self, now: float) -> None:
        halves = math.floor((now - self._half_since) / self.window)
        if halves >= 1:
            self._halves = (self._halves[1] if halves == 1 else 0, 0)
            self._half_since += halves * self.window  # not now: what was late must not last longer


def surplus_blocks(blocks: Sequence[Iterable[bool]], needed: int) -> list[int]:
    """The indexes of the blocks that can be given up, the last first.

    Each block is told as its instances: True for one that works, False for one that counts for
    nothing.  What is left still has ``needed`` working ones.
    """
    sizes = [sum(block) for block in blocks]
    spare = sum(sizes) - needed
    surplus = []
    for index in reversed(range(len(sizes))):
        if sizes[index] <= spare:
            spare -= sizes[index]
            surplus.append(index)
    return surplus
