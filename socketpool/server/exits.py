"""Learns of the exits of instances when they happen, not when supervisord gets to them."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ExitWatch:
    """One pidfd per instance; ``exited`` is called with the port, in the event loop."""

    def __init__(self, exited: Callable[[int], None]) -> None:
        self._exited = exited
        self._watched: dict[int, tuple[int, int]] = {}  # port -> pid, and its descriptor

    def watch(self, port: int, pid: int) -> bool:
        """Watch this process from now on; False when it can't be, or has ended already."""
        if port in self._watched and self._watched[port][0] == pid:
            return True
        self.forget(port)
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return False
        self._watched[port] = (pid, fd)
        asyncio.get_running_loop().add_reader(fd, self._end, port)
        return True

    def forget(self, port: int) -> None:
        """Watch no longer."""
        _, fd = self._watched.pop(port, (0, -1))
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def kill(self, port: int) -> bool:
        """``kill -9`` the process that is watched; False when none is."""
        if port not in self._watched:
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._watched[port][1], signal.SIGKILL)
        return True

    def close(self) -> None:
        """Let go of all descriptors."""
        for port in list(self._watched):
            self.forget(port)

    def _end(self, port: int) -> None:
        pid, _ = self._watched[port]
        self.forget(port)
        # supervisord made each instance the leader of a group.  Whoever is left of it would keep
        # the port; the leader is not reaped yet, so the number can't mean another group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        self._exited(port)
