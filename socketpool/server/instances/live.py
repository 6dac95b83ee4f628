"""One object for each instance, from its registration to its removal.

Whatever the server knows of an instance is in its record in the pool's table, in its
`LiveInstance` or in that one's `LiveProcess`, and ends with them: nothing of an instance can reach
another that gets its port later.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.server.instances.exits import ExitWatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from socketpool.core.pool import Pool
    from socketpool.core.records import Instance


class LiveProcess:
    """The present process of an instance, and what is known of it.

    said_ready: whether it has sent READY=1.
    passed: whether its readiness probe has passed.
    readiness: the readiness probe that is running.
    probe_at: when it is asked next whether it still works, in monotonic seconds.
    answer: what is set when it answers that.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.said_ready = False
        self.passed = False
        self.readiness: asyncio.Task[None] | None = None
        self.probe_at: float | None = None
        self.answer: asyncio.Future[None] | None = None
        self._exit_watch: ExitWatch | None = None

    def watch(self, ended: Callable[[], None]) -> bool:
        """Have ``ended`` called when it ends; False when it can't be watched."""
        if self._exit_watch is None:
            with suppress(OSError):
                self._exit_watch = ExitWatch(self.pid, ended)
        return self._exit_watch is not None

    def kill(self) -> None:
        """Kill it, if it is watched."""
        if self._exit_watch is not None:
            self._exit_watch.kill()

    def close(self) -> None:
        """Let go of it; it goes on."""
        if self._exit_watch is not None:
            self._exit_watch.close()


class LiveInstance:
    """One instance: its record, its process, and the last lines of its log when it failed."""

    def __init__(self, pool: Pool, port: int) -> None:
        self.port = port
        self.process: LiveProcess | None = None
        self.last_lines: list[str] = []
        self._pool = pool

    @property
    def record(self) -> Instance:
        """What the pool's table has of it now; raises KeyError when it was removed."""
        return self._pool.instances[self.port]

    def meet(self, pid: int) -> LiveProcess:
        """Its process, which is this one now."""
        if self.process is None or self.process.pid != pid:
            self.lose_process()
            self.process = LiveProcess(pid)
        return self.process

    def lose_process(self) -> None:
        """Its process has ended, and with it all that was known of that."""
        if self.process is not None:
            self.process.close()
            self.process = None


class LiveInstances:
    """All instances of one pool; the only place where they are added and removed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._live = {port: LiveInstance(pool, port) for port in pool.instances}

    def __iter__(self) -> Iterator[LiveInstance]:
        """All that there are now; some may be added or removed meanwhile."""
        return iter(list(self._live.values()))

    def get(self, port: int) -> LiveInstance | None:
        """The instance on a port, if there is one."""
        return self._live.get(port)

    def register(self, record: Instance) -> LiveInstance:
        """Add an instance that supervisord has; raises ValueError when its port is taken."""
        self._pool.add(record)
        live = self._live[record.port] = LiveInstance(self._pool, record.port)
        return live

    def remove(self, port: int) -> None:
        """Forget a stopped instance and everything about it."""
        self._pool.remove(port, time.monotonic())
        self._live.pop(port).lose_process()

    def close(self) -> None:
        """Let go of all processes; they go on."""
        for live in self._live.values():
            live.lose_process()
