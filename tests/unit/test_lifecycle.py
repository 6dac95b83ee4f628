"""The transition tables: what is in them is all that can happen."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from socketpool.core.lifecycle import (
    HELD,
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
from socketpool.tunnel.states import TUNNEL, TunnelEvent, TunnelState

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
registered+spawned=starting registered+drained=stopping
starting+ready=idle starting+overdue=failed starting+lost=starting
starting+distrusted=recycling starting+drained=stopping starting+stopped=stopped
idle+granted=leased idle+lost=starting idle+distrusted=recycling idle+drained=stopping
leased+returned=idle leased+returned-dirty=recycling leased+lost=leased
leased+distrusted=leased leased+drained=draining
draining+returned=stopping draining+returned-dirty=stopping draining+lost=draining
draining+distrusted=draining draining+resumed=leased
recycling+lost=recycling recycling+spawned=starting
recycling+stopped=stopped recycling+drained=stopping
failed+ready=idle failed+lost=failed failed+spawned=starting failed+drained=stopping
stopping+lost=stopping stopping+stopped=stopped stopping+resumed=recycling
stopped+spawned=starting stopped+resumed=registered stopped+removed=removed
"""
LEASE_TABLE = """\
pending+store=active pending+release=released
active+renew=active active+release=released active+expire=expired
"""
TUNNEL_TABLE = """\
new+connected=up new+close=closed up+lost=reconnecting up+broke=failed up+close=closed
reconnecting+connected=up reconnecting+rejected=refused reconnecting+broke=failed
reconnecting+close=closed refused+close=closed failed+close=closed
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
    ("machine", "start"), [(INSTANCE, "registered"), (LEASE, "pending"), (TUNNEL, "new")]
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


def test_an_instance_that_belongs_to_a_lease_stops_only_after_it() -> None:
    for state in HELD:
        ends = {after for (s, e), after in INSTANCE.table.items() if s is state}
        assert ends.isdisjoint({InstanceState.STOPPED, InstanceState.REMOVED, InstanceState.FAILED})
        to_stopping = {e for (s, e), after in INSTANCE.table.items() if s is state}
        assert InstanceEvent.STOPPED not in to_stopping


def test_what_is_not_held_and_not_gone_can_be_drained() -> None:
    gone = {InstanceState.STOPPING, InstanceState.STOPPED, InstanceState.REMOVED}
    for state in set(InstanceState) - gone - {InstanceState.DRAINING}:
        assert INSTANCE.allows(state, InstanceEvent.DRAINED), state


def test_the_diagram_shows_every_transition() -> None:
    assert mermaid(LEASE) == (
        "stateDiagram-v2\n"
        "    pending --> active: store\n"
        "    pending --> released: release\n"
        "    active --> active: renew\n"
        "    active --> released: release\n"
        "    active --> expired: expire\n"
    )
    assert mermaid(INSTANCE).count(" --> ") == len(INSTANCE.table)
