"""The immutable records of the pool: services, instances, leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from socketpool.core.lifecycle import InstanceState, LeaseState
from socketpool.core.permissions import OPERATOR


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """What the allocation needs to know of a service.

    ``warm`` instances are kept ready, ``most`` bounds how many may exist.  ``restart`` says that
    an instance must be restarted between leases; services written with the SDK need not, since
    each of their sessions is a process of its own.  ``notifies`` says that its instances tell
    themselves when they are ready.
    """

    name: str
    warm: int
    most: int
    restart: bool
    start_limit: float = 20.0
    notifies: bool = False


class Instance(NamedTuple):
    """One supervisor program of a service on one port.

    ``since`` and ``up_since`` are the monotonic times of the last change of state and of the last
    time it became ready; ``exits`` counts how often the process ended without having been up for
    long, ``failures`` how often it was given up since it was, and ``retry_at`` is when a failed one
    is tried again.  ``dirty`` says that it must be restarted when its lease ends.
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

    @property
    def name(self) -> str:
        """The name by which supervisorctl knows it."""
        return f"{self.block}:{self.port}"

    def moved(self, state: InstanceState, now: float) -> Instance:
        """The instance in another state; as `_replace`, for what happens at each lease."""
        return Instance(self.service, self.port, self.block, state, now, *self[5:])


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
