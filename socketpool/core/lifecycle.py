"""State machines as tables, so that an illegal step is a bug that shows."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class IllegalTransition(AssertionError):
    """An event arrived in a state that has no transition for it: a bug, never a user's mistake."""


class Machine(Generic[S, E]):
    """A transition table: ``(state, event) -> next state``."""

    def __init__(self, table: Mapping[tuple[S, E], S]) -> None:
        self.table = dict(table)

    def after(self, state: S, event: E) -> S:
        """The state that follows; raises :class:`IllegalTransition` when the table has none."""
        try:
            return self.table[state, event]
        except KeyError:
            raise IllegalTransition(f"{event} in state {state}") from None

    def allows(self, state: S, event: E) -> bool:
        """Whether the table has a transition for this event in this state."""
        return (state, event) in self.table


class InstanceState(StrEnum):
    """Where an instance is between its registration and its end."""

    REGISTERED = "registered"  # supervisord knows it and has not been told to start it yet
    STARTING = "starting"  # was started; not yet seen ready
    IDLE = "idle"  # ready; may be leased
    LEASED = "leased"  # belongs to exactly one lease
    DRAINING = "draining"  # belongs to a lease still; is stopped when that ends
    RECYCLING = "recycling"  # can't be trusted; must be restarted before anyone else may have it
    FAILED = "failed"  # did not become ready in time or exited again and again; is tried again
    STOPPING = "stopping"  # belongs to nobody, and is being stopped
    STOPPED = "stopped"  # has no process, on purpose
    REMOVED = "removed"  # supervisord no longer knows it; its port rests


class InstanceEvent(StrEnum):
    """What can happen to an instance."""

    SPAWNED = "spawned"  # supervisord was told to start it, or has a new process for it
    READY = "ready"  # its own process listens on its port, and its probe passed
    OVERDUE = "overdue"  # the start limit passed, or it exited too often
    LOST = "lost"  # the process exited or no longer listens
    DISTRUSTED = "distrusted"  # a probe of it failed, or its service was changed
    GRANTED = "granted"
    RETURNED = "returned"  # its lease ended, and nothing of that can be left in it
    RETURNED_DIRTY = "returned-dirty"  # its lease ended, and only a restart makes it trustworthy
    DRAINED = "drained"  # nobody may have it any more, whoever has it now excepted
    RESUMED = "resumed"  # the drain was taken back
    STOPPED = "stopped"  # supervisord says that it has no process and starts none
    REMOVED = "removed"  # supervisord gave it up


INSTANCE = Machine[InstanceState, InstanceEvent](
    {
        (InstanceState.REGISTERED, InstanceEvent.SPAWNED): InstanceState.STARTING,
        (InstanceState.REGISTERED, InstanceEvent.DRAINED): InstanceState.STOPPING,
        (InstanceState.STARTING, InstanceEvent.READY): InstanceState.IDLE,
        (InstanceState.STARTING, InstanceEvent.OVERDUE): InstanceState.FAILED,
        (InstanceState.STARTING, InstanceEvent.LOST): InstanceState.STARTING,
        (InstanceState.STARTING, InstanceEvent.DISTRUSTED): InstanceState.RECYCLING,
        (InstanceState.STARTING, InstanceEvent.DRAINED): InstanceState.STOPPING,
        (InstanceState.STARTING, InstanceEvent.STOPPED): InstanceState.STOPPED,
        (InstanceState.IDLE, InstanceEvent.GRANTED): InstanceState.LEASED,
        (InstanceState.IDLE, InstanceEvent.LOST): InstanceState.STARTING,
        (InstanceState.IDLE, InstanceEvent.DISTRUSTED): InstanceState.RECYCLING,
        (InstanceState.IDLE, InstanceEvent.DRAINED): InstanceState.STOPPING,
        (InstanceState.LEASED, InstanceEvent.RETURNED): InstanceState.IDLE,
        (InstanceState.LEASED, InstanceEvent.RETURNED_DIRTY): InstanceState.RECYCLING,
        (InstanceState.LEASED, InstanceEvent.LOST): InstanceState.LEASED,
        (InstanceState.LEASED, InstanceEvent.DISTRUSTED): InstanceState.LEASED,
        (InstanceState.LEASED, InstanceEvent.DRAINED): InstanceState.DRAINING,
        (InstanceState.DRAINING, InstanceEvent.RETURNED): InstanceState.STOPPING,
        (InstanceState.DRAINING, InstanceEvent.RETURNED_DIRTY): InstanceState.STOPPING,
        (InstanceState.DRAINING, InstanceEvent.LOST): InstanceState.DRAINING,
        (InstanceState.DRAINING, InstanceEvent.DISTRUSTED): InstanceState.DRAINING,
        (InstanceState.DRAINING, InstanceEvent.RESUMED): InstanceState.LEASED,
        (InstanceState.RECYCLING, InstanceEvent.LOST): InstanceState.RECYCLING,
        (InstanceState.RECYCLING, InstanceEvent.SPAWNED): InstanceState.STARTING,
        (InstanceState.RECYCLING, InstanceEvent.STOPPED): InstanceState.STOPPED,
        (InstanceState.RECYCLING, InstanceEvent.DRAINED): InstanceState.STOPPING,
        (InstanceState.FAILED, InstanceEvent.READY): InstanceState.IDLE,
        (InstanceState.FAILED, InstanceEvent.LOST): InstanceState.FAILED,
        (InstanceState.FAILED, InstanceEvent.SPAWNED): InstanceState.STARTING,
        (InstanceState.FAILED, InstanceEvent.DRAINED): InstanceState.STOPPING,
        (InstanceState.STOPPING, InstanceEvent.LOST): InstanceState.STOPPING,
        (InstanceState.STOPPING, InstanceEvent.STOPPED): InstanceState.STOPPED,
        (InstanceState.STOPPING, InstanceEvent.RESUMED): InstanceState.RECYCLING,
        (InstanceState.STOPPED, InstanceEvent.SPAWNED): InstanceState.STARTING,
        (InstanceState.STOPPED, InstanceEvent.RESUMED): InstanceState.REGISTERED,
        (InstanceState.STOPPED, InstanceEvent.REMOVED): InstanceState.REMOVED,
    }
)

HELD = frozenset({InstanceState.LEASED, InstanceState.DRAINING})
"""The states in which an instance belongs to exactly one lease."""

MOVING = frozenset(
    {
        InstanceState.REGISTERED,
        InstanceState.STARTING,
        InstanceState.RECYCLING,
        InstanceState.STOPPING,
    }
)
"""The states that an instance leaves by itself, soon."""


class LeaseState(StrEnum):
    """Where a lease is."""

    PENDING = "pending"  # granted in memory; not yet durable, so that no client was told of it
    ACTIVE = "active"  # in the store, admitted by the fence, and its client was told
    RELEASED = "released"
    EXPIRED = "expired"


class LeaseEvent(StrEnum):
    """What can happen to a lease."""

    STORE = "store"  # the store has it on disk
    RENEW = "renew"
    RELEASE = "release"
    EXPIRE = "expire"


LEASE = Machine[LeaseState, LeaseEvent](
    {
        (LeaseState.PENDING, LeaseEvent.STORE): LeaseState.ACTIVE,
        (LeaseState.PENDING, LeaseEvent.RELEASE): LeaseState.RELEASED,
        (LeaseState.ACTIVE, LeaseEvent.RENEW): LeaseState.ACTIVE,
        (LeaseState.ACTIVE, LeaseEvent.RELEASE): LeaseState.RELEASED,
        (LeaseState.ACTIVE, LeaseEvent.EXPIRE): LeaseState.EXPIRED,
    }
)


def mermaid(machine: Machine[S, E]) -> str:
    """The table as a Mermaid state diagram; ``docs/lifecycles.md`` holds its output."""
    lines = ["stateDiagram-v2"]
    lines += [
        f"    {state} --> {after}: {event}" for (state, event), after in machine.table.items()
    ]
    return "\n".join(lines) + "\n"
