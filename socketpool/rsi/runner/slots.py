"""Slots for sessions: so many at a time, whoever holds one and however it ends.

A slot is a byte of an unnamed file, locked by the process that has it.  The kernel gives the lock
back when the process ends, so none can be lost, and tells who holds it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from socketpool.errors import TimedOut

_FLOCK = struct.Struct("hhqqi4x")
RETRY_SECONDS = 0.02


class Slots:
    """Made by the runner; `take` is for the processes it forks."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._fd = os.memfd_create("session-slots", os.MFD_CLOEXEC)

    def take(self, patience: float) -> None:
        """Hold a slot until this process ends; raises TimedOut when none becomes free."""
        deadline = time.monotonic() + patience
        while True:
            for slot in range(self._count):
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                except OSError:
                    continue
                return
            if time.monotonic() > deadline:
                raise TimedOut("the service has as many sessions as it allows; try again later")
            time.sleep(RETRY_SECONDS)

    def holders(self) -> set[int]:
        """The processes that have a slot."""
        found = set()
        for slot in range(self._count):
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, slot, 1, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                found.add(pid)
        return found
