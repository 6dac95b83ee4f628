"""The transition tables: what is in them is all that can happen."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from socketpool.core.lifecycle import (
    INSTANCE,
    LEASE,
    IllegalTransition,
    InstanceEvent,
    InstanceState,
    LeaseEvent,
    LeaseState,
    Machine,
    mermaid,
)
from socketpool.tunnel.lifecycle import TUNNEL, TunnelEvent, TunnelState

MACHINES: list[tuple[Machine[Any, Any], Any, Any]] = [
    (INSTANCE, InstanceState, InstanceEvent),
    (LEASE, LeaseState, LeaseEvent),
    (TUNNEL, TunnelState, TunnelEvent),
]
STEPS = [
    pytest.param(machine, state, event, id=f"{state}+{event}")
    for machine, states, events in MACHINES
    for state, event in itertools.product(states, events)
]
INSTANCE_TABLE = """\
starting+ready=idle starting+overdue=failed starting+lost=starting
failed+ready=idle failed+lost=failed
idle+granted=leased idle+lost=starting
leased+returned=idle leased+returned-dirty=recycling leased+lost=leased
recycling+lost=recycling recycling+restarted=starting
"""
LEASE_TABLE = "active+renew=active active+release=released active+expire=expired"
TUNNEL_TABLE = """\
new+connected=up new+close=closed up+lost=reconnecting up+close=closed
reconnecting+connected=up reconnecting+rejected=refused reconnecting+close=closed
refused+close=closed
"""


@pytest.mark.parametrize(
    ("machine", "text"),
    [(INSTANCE, INSTANCE_TABLE), (LEASE, LEASE_TABLE), (TUNNEL, TUNNEL_TABLE)],
)
def test_the_table_is_the_agreed_one(machine: Machine[Any, Any], text: str) -> None:
    assert {f"{s}+{e}={after}" for (s, e), after in machine.table.items()} == set(text.split())


@pytest.mark.parametrize(("machine", "state", "event"), STEPS)
def test_a_step_is_in_the_table_or_raises(machine: Any, state: Any, event: Any) -> None:
    if machine.allows(state, event):
        assert machine.after(state, event) is machine.table[state, event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event} in state {state}"):
            machine.after(state, event)


@pytest.mark.parametrize(
    ("machine", "start"), [(INSTANCE, "starting"), (LEASE, "active"), (TUNNEL, "new")]
)
def test_every_state_can_be_reached(machine: Machine[Any, Any], start: str) -> None:
    reached = {start}
    for _ in machine.table:
        reached |= {after for (state, _), after in machine.table.items() if state in reached}
    states = {s for s, _ in machine.table} | set(machine.table.values())
    assert reached == states


def test_no_way_leads_from_a_returned_lease_to_the_next_without_a_check() -> None:
    """What is dirty becomes idle through a restart and a look at its socket only."""
    ways_to_idle = {(s, e) for (s, e), after in INSTANCE.table.items() if after == "idle"}
    assert ways_to_idle == {("starting", "ready"), ("failed", "ready"), ("leased", "returned")}


def test_the_diagram_shows_every_transition() -> None:
    assert mermaid(LEASE) == (
        "stateDiagram-v2\n"
        "    active --> active: renew\n"
        "    active --> released: release\n"
        "    active --> expired: expire\n"
    )
    assert mermaid(INSTANCE).count(" --> ") == len(INSTANCE.table)
