"""How long to wait before what failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass

JITTER = 0.2
"""The share of a delay that is left to chance, so that what failed together is not retried so."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds that double from ``first`` up to ``max_seconds``."""

    first: float
    max_seconds: float

    def delay(self, failures: int, chance: float) -> float:
        """The delay after so many failures in a row; ``chance`` is a random number in [0, 1)."""
        doublings = min(failures - 1, 32)  # beyond any maximum, and no float overflows
        return min(self.max_seconds, self.first * 2.0**doublings) * (1 - JITTER * chance)
