"""Port ranges and the search for free runs in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

LOWEST_POOL_PORT = 1024
"""Ports below this need privileges that a pool doesn't have."""

HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortRange:
    """The ports ``first`` to ``last``, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """Raise ValueError, in words for the user, for a range that no pool can own."""
        if not LOWEST_POOL_PORT <= self.first <= HIGHEST_PORT:
            raise ValueError(
                f"first port {self.first} is not within {LOWEST_POOL_PORT}-{HIGHEST_PORT}"
            )
        if not self.first <= self.last <= HIGHEST_PORT:
            if self.last < self.first:
                raise ValueError(f"{self.first}-{self.last}: the first port is above the last")
            raise ValueError(f"last port {self.last} is not within {self.first}-{HIGHEST_PORT}")

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read ``"21000-21499"``; raises ValueError."""
        match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", text)
        if match is None:
            raise ValueError(f"{text!r} is not a port range; write it as first-last: 21000-21499")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def overlaps(self, other: PortRange) -> bool:
        """Whether the two ranges have a port in common."""
        return self.first <= other.last and other.first <= self.last


def free_runs(ports: PortRange, taken: Container[int], count: int) -> list[range]:
    """The lowest ``count`` free ports of the range, as runs of neighbours.

    supervisord numbers the processes of one program upwards from a first port, so each run becomes
    one program.  Fewer ports come back when the range has no more; the caller decides what that
    means.
    """
    runs: list[range] = []
    for port in ports:
        if count == 0:
            break
        if port in taken:
            continue
        if runs and runs[-1].stop == port:
            runs[-1] = range(runs[-1].start, port + 1)
        else:
            runs.append(range(port, port + 1))
        count -= 1
    return runs
