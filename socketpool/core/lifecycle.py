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

    STARTING = "starting"  # registered with supervisord; not yet seen listening
    IDLE = "idle"  # its own process listens on its port; may be leased
    LEASED = "leased"  # belongs to exactly one lease
    RECYCLING = "recycling"  # given back; must be restarted before anyone else may have it
    FAILED = "failed"  # did not become ready in time or exited again and again; still watched


class InstanceEvent(StrEnum):
    """What can happen to an instance."""

    READY = "ready"  # the listening socket belongs to the process supervisord reports
    OVERDUE = "overdue"  # the start limit passed, or it exited too often
    LOST = "lost"  # the process exited or no longer listens
    GRANTED = "granted"
    RETURNED = "returned"  # released, and nothing of the old lease can be left in it
    RETURNED_DIRTY = "returned-dirty"  # released, and only a restart makes it trustworthy
    RESTARTED = "restarted"


INSTANCE = Machine[InstanceState, InstanceEvent](
    {
        (InstanceState.STARTING, InstanceEvent.READY): InstanceState.IDLE,
        (InstanceState.STARTING, InstanceEvent.OVERDUE): InstanceState.FAILED,
        (InstanceState.STARTING, InstanceEvent.LOST): InstanceState.STARTING,
        (InstanceState.FAILED, InstanceEvent.READY): InstanceState.IDLE,
        (InstanceState.FAILED, InstanceEvent.LOST): InstanceState.FAILED,
        (InstanceState.IDLE, InstanceEvent.GRANTED): InstanceState.LEASED,
        (InstanceState.IDLE, InstanceEvent.LOST): InstanceState.STARTING,
        (InstanceState.LEASED, InstanceEvent.RETURNED): InstanceState.IDLE,
        (InstanceState.LEASED, InstanceEvent.RETURNED_DIRTY): InstanceState.RECYCLING,
        (InstanceState.LEASED, InstanceEvent.LOST): InstanceState.LEASED,
        (InstanceState.RECYCLING, InstanceEvent.LOST): InstanceState.RECYCLING,
        (InstanceState.RECYCLING, InstanceEvent.RESTARTED): InstanceState.STARTING,
    }
)


class LeaseState(StrEnum):
    """Where a lease is."""

    ACTIVE = "active"
    RELEASED = "released"
    EXPIRED = "expired"


class LeaseEvent(StrEnum):
    """What can happen to a lease."""

    RENEW = "renew"
    RELEASE = "release"
    EXPIRE = "expire"


LEASE = Machine[LeaseState, LeaseEvent](
    {
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
