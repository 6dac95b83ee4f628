"""Learns of the exit of an instance's process when it happens, not when supervisord notices it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ExitWatch:
    """A pidfd of one process; ``ended`` is called once, in the event loop, when it has ended.

    Raises OSError when the process can't be watched, for instance because it has ended already.
    """

    def __init__(self, pid: int, ended: Callable[[], None]) -> None:
        self._pid = pid
        self._ended = ended
        self._fd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._fd, self._end)

    def kill(self) -> None:
        """``kill -9`` the process."""
        if self._fd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def close(self) -> None:
        """Watch no longer."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _end(self) -> None:
        self.close()
        # supervisord made each instance the leader of a process group.  What is left of the group
        # would keep the port; the leader is not reaped yet, so the number can't mean another group.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self._ended()
