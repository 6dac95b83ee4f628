"""What survives the pool server: which leases still are, and which directories are nobody's."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool.rsi.runner import workspace
from socketpool.system.wiping import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from socketpool.config.statedir import StateDir
    from socketpool.credentials.fence import Fence
    from socketpool.store.contract import LeaseRecord
    from socketpool.supervision.rpc import ProcessInfo

log = logging.getLogger("socketpool.recovery")


def live_leases(
    records: list[LeaseRecord], processes: list[ProcessInfo], fence: Fence
) -> list[LeaseRecord]:
    """Those leases of the store that still are: that the fence admits, with all their instances."""
    names = {f"{p.group}:{p.name}" for p in processes}
    return [
        record
        for record in records
        if all(
            grant.instance in names and fence.admits(grant.port, record.generation)
            for grant in record.grants
        )
    ]


def workspaces_on_disk(state: StateDir) -> list[str]:
    """The names of all workspaces there are; raises OSError."""
    return [path.name for path in state.workspaces.iterdir()]


def sweep(state: StateDir, found: Collection[str], is_live: Callable[[str], bool]) -> None:
    """Send workspaces of leases that have ended to the trash.

    They must have been found before it is asked which leases live, so that a lease that has just
    begun keeps its own.
    """
    for name in found:
        if not is_live(name):
            with suppress(OSError):  # it will be found again
                workspace.discard(state.workspaces, state.trash, name)


def empty_trash(state: StateDir) -> None:
    """Delete what leases left behind; raises OSError when the trash can't be read."""
    for path in state.trash.iterdir():
        wipe(path)
