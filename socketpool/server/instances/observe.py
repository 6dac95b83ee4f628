"""Puts together what supervisord, the kernel and the probes say of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.core.decision import Observation, Reported
from socketpool.core.lifecycle import InstanceState
from socketpool.core.records import EXITS_BEFORE_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.core.pool import Pool
    from socketpool.server.instances.instanceblocks import Blocks
    from socketpool.server.instances.live import LiveInstance
    from socketpool.server.instances.probes import Prober
    from socketpool.supervision.rpc import ProcessInfo
    from socketpool.system.listeners import Listeners

BECOMING_READY = frozenset({InstanceState.STARTING, InstanceState.FAILED})
"""The states in which it is asked whether an instance is ready."""

REPORTED = {
    "STOPPED": Reported.STOPPED,
    "FATAL": Reported.FATAL,
    "STARTING": Reported.RUNNING,
    "RUNNING": Reported.RUNNING,
    "STOPPING": Reported.STOPPING,
}
"""supervisord's names of states; each other one is that of a program between two processes."""


class Observer:
    """Observes the instances of one pool.  ``watch`` is called with each process that is met."""

    def __init__(
        self, pool: Pool, prober: Prober, blocks: Blocks, *, watch: Callable[[LiveInstance], None]
    ) -> None:
        self._pool = pool
        self._prober = prober
        self._blocks = blocks
        self._watch = watch

    def observe(
        self, live: LiveInstance, info: ProcessInfo | None, listeners: Listeners | None
    ) -> Observation:
        """What is to be known of an instance; ``info`` is supervisord's answer, None if it has no
        such program.  Without ``listeners`` no instance is found ready.

        Raises OSError when the kernel can't be asked now.
        """
        if info is None:
            return Observation(Reported.UNKNOWN)
        record = live.record
        pid = info.pid if info.alive else 0
        ready = False
        if pid and pid != record.last_pid:
            live.meet(pid)
            self._watch(live)
            may_be_ready = record.state in BECOMING_READY and record.exits < EXITS_BEFORE_FAILED
            if may_be_ready and listeners is not None:
                ready = self._prober.is_ready(live, listeners)
        reported = REPORTED.get(info.state, Reported.BETWEEN)
        if not pid and reported in {Reported.RUNNING, Reported.STOPPING}:
            reported = Reported.BETWEEN
        return Observation(
            reported,
            pid,
            ready=ready,
            retiring=self._blocks.is_retiring(record.block),
            start_limit=self._pool.start_limit(record.service),
        )
