"""The immutable records of the pool: services, instances, leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from socketpool.core.lifecycle import HELD, INSTANCE, InstanceEvent, InstanceState, LeaseState
from socketpool.core.permissions import OPERATOR
from socketpool.defaults import START_SECONDS

EXITS_BEFORE_FAILED = 5
"""How many exits in a row, none after a long uptime, mark an instance as failed."""

STABLE_SECONDS = 10.0
"""Uptime after which the counts of exits and failures are reset, in seconds."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What the allocation needs to know of a service.

    ``warm`` is how many instances are kept ready, ``max_instances`` how many may exist.
    ``restart`` says that an instance must be restarted between leases; an instance of an SDK
    service need not be, since each of its sessions is a process of its own.  ``notifies`` says that
    the instances themselves report that they are ready.
    """

    name: str
    warm: int
    max_instances: int
    restart: bool
    start_limit: float = START_SECONDS
    notifies: bool = False


class Instance(NamedTuple):
    """One supervisor program of a service on one port, and all that is decided upon.

    Times are in monotonic seconds.

    since: when its state last changed.
    pid: its process, 0 for none.
    exits: how often its process ended without a long uptime, since it was started anew.
    dirty: whether it must be restarted when its lease ends.
    up_since: when it last became ready.
    failures: how often it failed, since it last had a long uptime.
    retry_at: when it is tried again, if it has failed.
    last_pid: the process that was last seen to end.  supervisord may name it for a moment longer.
    halted: whether it has failed and is stopped until it is tried again.
    operator_stopped: whether an operator stopped it while it was leased.
    process_replaced: whether its process ended after its lease had.
    probe_failed: whether its process failed the last probe.
    outdated_since: when its service was changed, in seconds of CLOCK_BOOTTIME; 0 if it was not.
    start_refused_at: when supervisord last refused to start it; 0 if it did not.
    """

    service: str
    port: int
    block: str
    state: InstanceState = InstanceState.STARTING
    since: float = 0.0
    pid: int = 0
    exits: int = 0
    dirty: bool = False
    up_since: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    last_pid: int = 0
    halted: bool = False
    operator_stopped: bool = False
    process_replaced: bool = False
    probe_failed: bool = False
    outdated_since: float = 0.0
    start_refused_at: float = 0.0

    @property
    def name(self) -> str:
        """The name by which supervisorctl knows it."""
        return f"{self.block}:{self.port}"

    def moved(self, state: InstanceState, now: float) -> Instance:
        """The instance in another state; as `_replace`, for what happens at each lease."""
        return Instance(self.service, self.port, self.block, state, now, *self[5:])

    def after(self, event: InstanceEvent, now: float) -> Instance:
        """The instance after an event; raises `IllegalTransition`."""
        state = INSTANCE.after(self.state, event)
        moved = self if state is self.state else self.moved(state, now)
        if event is InstanceEvent.GRANTED or event is InstanceEvent.RETURNED:
            return moved  # first, since they happen at each lease
        match event:
            case InstanceEvent.LOST:
                return moved._exited(self.state, now)
            case InstanceEvent.SPAWNED:
                return moved._replace(
                    exits=0,
                    dirty=False,
                    halted=False,
                    operator_stopped=False,
                    process_replaced=False,
                    start_refused_at=0.0,
                )
            case InstanceEvent.READY:
                return moved._replace(dirty=False, up_since=now, halted=False)
            case InstanceEvent.DISTRUSTED:
                return moved._replace(dirty=True)
        return moved

    def saw(self, pid: int) -> Instance:
        """The instance with this process, 0 for none."""
        if not pid:
            return self._replace(pid=0, last_pid=self.pid or self.last_pid, probe_failed=False)
        # Who started it again after an operator had stopped it can only have been an operator.
        return self._replace(pid=pid, operator_stopped=False)

    def noting(self, fact: str, *, value: Any) -> Instance:
        """The instance with another value of one of its fields; its state stays as it is."""
        return self._replace(**{fact: value})

    def _exited(self, before: InstanceState, now: float) -> Instance:
        was_up = before is InstanceState.IDLE or before in HELD
        is_stable = was_up and now - self.up_since >= STABLE_SECONDS
        return self.saw(0)._replace(
            exits=1 if is_stable else self.exits + 1,
            failures=0 if is_stable else self.failures,
            dirty=self.dirty or before in HELD,
            process_replaced=self.process_replaced or before is InstanceState.RECYCLING,
        )


class Grant(NamedTuple):
    """One service of a lease: the instance that serves it."""

    service: str
    port: int
    instance: str


class Lease(NamedTuple):
    """A client's exclusive claim on one instance of each requested service.

    ``expires`` and ``until`` are monotonic seconds: the end of the present time to live, and the
    maximum age that no renewal passes.  ``generation`` grows with every grant of the pool and
    fences off holders of earlier ones.  ``created`` is the wall-clock second since the epoch at
    which it was granted, for display.
    """

    id: str
    generation: int
    grants: tuple[Grant, ...]
    ttl: float
    expires: float
    until: float
    key: str = ""
    client: str = OPERATOR
    state: LeaseState = LeaseState.ACTIVE
    created: float = 0.0
