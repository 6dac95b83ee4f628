"""The fence: which lease's generation holds each port at this moment, in memory that all share.

The pool server writes it, every instance reads it.  A lease begins on a port with one store of
eight bytes and ends with another, so it ends at one instant for everybody; who shows the token of
an earlier generation is outside, however long it slept (a fencing token: Kleppmann, "How to do
distributed locking", 2016).  The file outlives the pool server but means nothing without the
instances: after a restart of the machine it is as good as empty.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PORTS = 1 << 16
_BYTES = 8 * _PORTS


class Fence:
    """One unsigned 64-bit generation per port; 0 holds nothing."""

    def __init__(self, fd: int, *, writable: bool) -> None:
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._memory = mmap.mmap(fd, _BYTES, mmap.MAP_SHARED, prot)
        self._generations = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls, path: Path) -> Fence:
        """The fence in this file, made if it isn't there; for its one writer.  Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Wholly allocated: a store into a hole of a full disk would end the process.
            os.posix_fallocate(fd, 0, _BYTES)
            return cls(fd, writable=True)
        finally:
            os.close(fd)

    @classmethod
    def open(cls, path: Path) -> Fence:
        """The fence in this file, to look at; raises OSError, and ValueError for another file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return cls(fd, writable=False)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of the memory; what others see of it stays as it is."""
        self._generations.release()
        self._memory.close()

    def admit(self, ports: Iterable[int], generation: int) -> None:
        """Let the holder of this generation, and nobody else, in at these ports."""
        for port in ports:
            self._generations[port] = generation

    def bar(self, ports: Iterable[int]) -> None:
        """Let nobody in at these ports."""
        self.admit(ports, 0)

    def bar_all_but(self, kept: Iterable[int]) -> None:
        """Let nobody in anywhere but at these ports."""
        ports = set(kept)
        self.bar(p for p in range(_PORTS) if self._generations[p] and p not in ports)

    def generation(self, port: int) -> int:
        """The generation that holds the port now; 0 when none does."""
        return self._generations[port]

    def admits(self, port: int, generation: int) -> bool:
        """Whether this generation holds the port now."""
        return generation > 0 and self._generations[port] == generation


class Tenure(NamedTuple):
    """A lease's hold on one port, as the service there sees it."""

    fence: Fence
    port: int
    generation: int

    def lasts(self) -> bool:
        """Whether the lease still holds the port."""
        return self.fence.admits(self.port, self.generation)
