"""The pool server with places at which it can be made to die, and a clock that can be moved.

Run in its place by supervisord: ``python faultyserver.py <state dir> <faults>``.  Nothing of the
product knows of it: it puts subclasses in the place of what the server is built from, and they ask
for a file in the folder ``<faults>`` at each step.  A file is used up by the death that it causes.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from socketpool.core.pool import Pool
from socketpool.credentials.fence import Fence
from socketpool.server import __main__ as server
from socketpool.server import poolmanager
from socketpool.store.contract import Save
from socketpool.store.sqlite import SqliteLeaseStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from socketpool.core.records import Lease
    from socketpool.store.contract import Change
    from tests.support.pools import RunningPool

CLOCK = "clock"
"""The file that holds by how many seconds the wall clock is off."""


def die_at(point: str) -> None:
    """``kill -9`` of this process if that was asked for here."""
    try:
        (Path(sys.argv[2]) / point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class DyingPool(Pool):
    """Dies after a grant in memory, and around the end of a lease there."""

    def grant(self, *args: Any, **kwargs: Any) -> Lease:
        lease = super().grant(*args, **kwargs)
        die_at("granted")
        return lease

    def end(self, *args: Any, **kwargs: Any) -> Lease:
        die_at("ending")
        ended = super().end(*args, **kwargs)
        die_at("ended")
        return ended


class DyingStore(SqliteLeaseStore):
    """Dies before, within and after a commit, of a grant or of an end."""

    def commit(self, changes: Sequence[Change]) -> None:
        kind = "save" if any(isinstance(change, Save) for change in changes) else "forget"

        def watch(statement: str) -> None:
            if statement == "COMMIT":
                die_at(f"{kind}-within")

        die_at(f"{kind}-before")
        self._db.set_trace_callback(watch)
        super().commit(changes)
        die_at(f"{kind}-after")


class DyingFence(Fence):
    """Dies before, within and after it opens or closes at the ports of a lease."""

    def admit(self, ports: Iterable[int], generation: int) -> None:
        kind = "admit" if generation else "bar"
        die_at(f"{kind}-before")
        for port in ports:
            super().admit([port], generation)
            die_at(f"{kind}-within")
        die_at(f"{kind}-after")


def main() -> int:
    """The server, until SIGTERM or a fault."""
    clock, now = Path(sys.argv[2]) / CLOCK, time.time

    def wall_clock() -> float:
        try:
            return now() + float(clock.read_text())
        except FileNotFoundError:
            return now()

    with (
        mock.patch.object(time, "time", wall_clock),
        mock.patch.multiple(poolmanager, Pool=DyingPool, Fence=DyingFence),
        mock.patch.object(server, "SqliteLeaseStore", DyingStore),
    ):
        return server.main(sys.argv[1])


class Faults:
    """The faults of one running pool, whose server is replaced by one that can have them."""

    def __init__(self, pool: RunningPool) -> None:
        self._folder = pool.folder / "faults"
        self._folder.mkdir()
        command = (sys.executable, "-P", __file__, str(pool.state), str(self._folder))
        path = pool.state / "supervisord.conf"
        conf, found = re.subn(
            r"(?m)(?<=^\[program:pool-server\]\n)command=.*$",
            f"command={shlex.join(command)}",
            path.read_text(),
        )
        assert found == 1
        # Without a shortest time up supervisord starts it again at once, however often it dies.
        path.write_text(conf.replace("startsecs=1", "startsecs=0"))
        pool.supervisorctl("update", "pool-server")
        pool.await_server()

    def arm(self, point: str) -> None:
        """The server dies when it comes there."""
        (self._folder / point).touch()

    def disarm(self) -> None:
        """Whatever was armed."""
        for path in self._folder.iterdir():
            path.unlink()

    def is_armed(self, point: str) -> bool:
        return (self._folder / point).exists()

    def set_clock(self, seconds: float) -> None:
        """Move the server's wall clock by so much from the true time."""
        new = self._folder / "clock.new"
        new.write_text(str(seconds))
        new.replace(self._folder / CLOCK)


if __name__ == "__main__":
    sys.exit(main())
