"""Takes over what supervisord runs already, after a restart of the pool server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from socketpool.core.lifecycle import InstanceState
from socketpool.core.records import Instance
from socketpool.supervision import conf

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from socketpool.core.pool import Pool
    from socketpool.server.instances.drains import Drains
    from socketpool.server.instances.instanceblocks import Blocks
    from socketpool.supervision.rpc import ProcessInfo


def adopt(
    pool: Pool,
    blocks: Blocks,
    drains: Drains,
    processes: Iterable[ProcessInfo],
    leased: Collection[int],
) -> Iterator[Instance]:
    """What is the pool's own of the processes, to be added to it one by one.

    Instances in no lease that keep state between clients are restarted: nobody knows what was done
    with them meanwhile.
    """
    for process in processes:
        parsed = conf.parse_instance(process.group, process.name)
        if parsed is None or parsed[2] not in pool.ports:
            continue
        service, number, port = parsed
        is_drained = service not in pool.services or drains.covers(
            service, f"{process.group}:{process.name}"
        )
        state = _state(
            process,
            held=port in leased,
            is_drained=is_drained,
            keeps_state=service in pool.services and pool.services[service].restart,
        )
        pid = process.pid if process.alive else 0
        blocks.knows(process.group, service, number)
        yield Instance(service, port, process.group, state, time.monotonic(), pid)


def note_needs(pool: Pool) -> None:
    """Take it that all there is was needed: the run before knew why it was there."""
    for name, service in pool.services.items():
        pool.usage[name].note_need(max(0, len(pool.of(name)) - service.warm), time.monotonic())


def remove_unknown_files(programs: Path, processes: Iterable[ProcessInfo]) -> None:
    """Delete configuration files of groups that supervisord never took in; raises OSError."""
    groups = {process.group for process in processes}
    for path in programs.glob("*.conf"):
        if path.stem not in groups:
            path.unlink()


def _state(
    process: ProcessInfo, *, held: bool, is_drained: bool, keeps_state: bool
) -> InstanceState:
    if held:
        return InstanceState.DRAINING if is_drained else InstanceState.LEASED
    if is_drained:
        return InstanceState.STOPPING
    if process.at_rest:
        return InstanceState.REGISTERED
    if keeps_state and process.alive:
        return InstanceState.RECYCLING
    return InstanceState.STARTING
