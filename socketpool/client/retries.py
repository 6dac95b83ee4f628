"""How long, and how often, a request to the pool server is tried again.

A pool server that was killed is back within a second or two, and whoever it had answered before
should not notice more than a pause.  The same address on first contact is another matter: most
likely it is wrong, and the user wants to know at once.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from socketpool.core.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

RESTART_SECONDS = 8.0
"""Longest restart of a pool server on a busy machine; supervisord notices an exit within 1 s."""

BACKOFF = Backoff(first=0.05, max_seconds=0.5)

_SPREAD = 0.25
"""Random part of each pause: clients that were refused together must not come back together."""


class RetryBudget:
    """That of one request, whose caller waits up to ``wait`` seconds for what it asks for."""

    def __init__(
        self,
        wait: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wait = wait
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self.cuts = 0
        """How often the server has vanished so far."""

    @property
    def wait(self) -> float:
        """The rest of the time for which the caller waits, in seconds."""
        return max(0.0, self._wait - (self._clock() - self._began))

    def after_cut(self) -> bool:
        """Pause before the next attempt at a server that vanished; False when the time is up."""
        self.cuts += 1
        pause = BACKOFF.delay(self.cuts, random.random())  # noqa: S311 - spreads, hides nothing
        return self._pause(pause, max(self._wait, RESTART_SECONDS))

    def after_refusal(self, retry_after: float) -> bool:
        """Pause as long as the server asks for; False when the caller doesn't wait that long."""
        spread = 1 + _SPREAD * random.random()  # noqa: S311 - spreads clients, hides nothing
        return self._pause(retry_after * spread, self._wait)

    def _pause(self, seconds: float, max_seconds: float) -> bool:
        if self._clock() - self._began + seconds > max_seconds:
            return False
        self._sleep(seconds)
        return True


def parse_retry_after(value: str | None) -> float | None:
    """The header's seconds; None without any, or for a date, which no pool server sends."""
    if value is None or not value.isascii() or not value.isdigit():
        return None
    return max(0.1, float(value[:6]))
