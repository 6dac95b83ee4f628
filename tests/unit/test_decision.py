"""What is decided about one instance in one situation."""

from __future__ import annotations

from typing import Any

import pytest

from socketpool.core.backoff import Backoff
from socketpool.core.decision import (
    Fail,
    Happen,
    Kill,
    Note,
    Observation,
    Remove,
    Reported,
    Saw,
    Start,
    Stop,
    decide,
    needs_look,
    next_start,
    retry_delay,
)
from socketpool.core.lifecycle import InstanceEvent, InstanceState
from socketpool.core.records import EXITS_BEFORE_FAILED, Instance

NOW = 100.0
LOST, READY, SPAWNED = InstanceEvent.LOST, InstanceEvent.READY, InstanceEvent.SPAWNED
STOPPED, DRAINED, DISTRUSTED = (
    InstanceEvent.STOPPED,
    InstanceEvent.DRAINED,
    InstanceEvent.DISTRUSTED,
)
LOOPS = {"exits": EXITS_BEFORE_FAILED}


def instance(state: str, **facts: Any) -> Instance:
    return Instance("web", 2000, "web", InstanceState(state), NOW - 1, **facts)


def report(reported: str, **seen: Any) -> Observation:
    return Observation(Reported(reported), **seen)


RUNNING = report("running", pid=7)
CASES: dict[str, tuple[Instance, Observation, list[Any]]] = {
    "a starting one is ready": (
        instance("starting"),
        report("running", pid=7, ready=True),
        [Saw(7), Happen(READY)],
    ),
    "a starting one is not ready yet": (
        instance("starting", pid=7),
        report("running", pid=7, start_limit=5),
        [],
    ),
    "a starting one is past its limit": (
        instance("starting", pid=7),
        report("running", pid=7, start_limit=0.5),
        [Fail()],
    ),
    "a starting one exits again and again": (
        instance("starting", **LOOPS),
        report("between"),
        [Fail()],
    ),
    "one that loops is not ready, even if it seems so": (
        instance("starting", pid=7, **LOOPS),
        report("running", pid=7, ready=True),
        [Fail()],
    ),
    "an operator has stopped an idle one": (
        instance("idle", pid=7),
        report("stopped"),
        [Happen(LOST), Happen(STOPPED)],
    ),
    "supervisord gave a starting one up": (
        instance("starting", pid=7),
        report("fatal"),
        [Happen(LOST)],
    ),
    "an operator has started a stopped one": (
        instance("stopped"),
        RUNNING,
        [Saw(7), Happen(SPAWNED)],
    ),
    "an operator has started one that is being given up": (
        instance("stopped"),
        report("running", pid=7, retiring=True),
        [Saw(7), Happen(SPAWNED), Happen(DRAINED)],
    ),
    "supervisord names a process whose exit is known": (
        instance("starting", last_pid=7),
        RUNNING,
        [],
    ),
    "the exit of a process was missed": (
        instance("idle", pid=6),
        RUNNING,
        [Happen(LOST), Saw(7)],
    ),
    "the kernel tells the exit": (
        instance("leased", pid=7),
        Observation(ended=True),
        [Happen(LOST)],
    ),
    "the kernel tells the exit of a stopped one": (
        instance("stopped", pid=7),
        Observation(ended=True),
        [Saw(0)],
    ),
    "one that was leased is restarted": (instance("recycling", pid=7), RUNNING, [Stop()]),
    "one that was leased is being stopped": (
        instance("recycling", pid=7),
        report("stopping", pid=7),
        [],
    ),
    "one that was leased is at rest": (instance("recycling"), report("stopped"), [Start()]),
    "one that was leased has another process": (
        instance("recycling", process_replaced=True),
        RUNNING,
        [Saw(7), Happen(SPAWNED)],
    ),
    "another process is found that may have served the lease too": (
        instance("recycling", pid=6),
        RUNNING,
        [Happen(LOST), Note("process_replaced", value=False), Saw(7), Stop()],
    ),
    "an operator had stopped it while it was leased": (
        instance("recycling", operator_stopped=True),
        report("stopped"),
        [Happen(STOPPED)],
    ),
    "an operator stops a leased one": (
        instance("leased"),
        report("stopped"),
        [Note("operator_stopped", value=True)],
    ),
    "an operator starts it again": (
        instance("leased", operator_stopped=True),
        RUNNING,
        [Saw(7)],
    ),
    "an operator has started it again, and the lease is over": (
        instance("recycling", operator_stopped=True),
        RUNNING,
        [Saw(7), Stop()],
    ),
    "one that shrinks away": (instance("stopping", pid=7), RUNNING, [Stop()]),
    "one that has shrunk away": (instance("stopping"), report("stopped"), [Happen(STOPPED)]),
    "a failed one waits": (
        instance("failed", retry_at=NOW + 1),
        report("stopped"),
        [Note("halted", value=True)],
    ),
    "a failed one is tried again": (
        instance("failed", retry_at=NOW, halted=True),
        report("stopped"),
        [Start()],
    ),
    "a failed one that loops is halted": (
        instance("failed", retry_at=NOW + 1, pid=7, **LOOPS),
        RUNNING,
        [Stop()],
    ),
    "a failed one that is only slow goes on": (
        instance("failed", retry_at=NOW + 1, pid=7),
        RUNNING,
        [],
    ),
    "a failed one that was slow is ready": (
        instance("failed", retry_at=NOW + 1, pid=7),
        report("running", pid=7, ready=True),
        [Happen(READY)],
    ),
    "an operator starts a failed one": (
        instance("failed", retry_at=NOW + 1, halted=True, **LOOPS),
        RUNNING,
        [Saw(7), Happen(SPAWNED)],
    ),
    "an operator has removed an idle one": (
        instance("idle", pid=7),
        report("unknown"),
        [
            Happen(LOST),
            Note("operator_stopped", value=True),
            Happen(DRAINED),
            Happen(STOPPED),
            Remove(),
        ],
    ),
    "an operator has removed a leased one": (
        instance("leased"),
        report("unknown"),
        [Note("operator_stopped", value=True), Happen(DRAINED)],
    ),
    "a probe fails once": (
        instance("idle", pid=7),
        Observation(complaint="silent"),
        [Note("probe_failed", value=True)],
    ),
    "a probe fails twice": (
        instance("idle", pid=7, probe_failed=True),
        Observation(complaint="silent"),
        [Happen(DISTRUSTED, "silent"), Kill()],
    ),
    "a probe fails and passes": (
        instance("idle", pid=7, probe_failed=True),
        Observation(answered=True),
        [Note("probe_failed", value=False)],
    ),
    "a leased one hangs": (
        instance("leased", pid=7, probe_failed=True),
        Observation(complaint="silent"),
        [Happen(DISTRUSTED, "silent")],
    ),
    "a leased one is stopped by a signal": (
        instance("leased", pid=7),
        Observation(complaint="stopped", certain=True),
        [Happen(DISTRUSTED, "stopped")],
    ),
    "a probe fails of one that is on its way out": (
        instance("stopping", pid=7, probe_failed=True),
        Observation(complaint="silent"),
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_decided(case: str) -> None:
    known, seen, actions = CASES[case]
    assert decide(known, seen, NOW) == actions


def test_facts_about_a_process_or_a_start_end_with_it() -> None:
    facts = {"halted": True, "operator_stopped": True, "process_replaced": True, "dirty": True}
    new = instance("failed", start_refused_at=3.0, exits=3, **facts).after(SPAWNED, NOW)
    assert (new.exits, new.start_refused_at) == (0, 0.0)
    assert not any(getattr(new, fact) for fact in facts)
    lost = instance("idle", pid=7, probe_failed=True).after(LOST, NOW)
    assert (lost.pid, lost.last_pid, lost.probe_failed) == (0, 7, False)


def test_a_process_that_ended_before_the_lease_did_is_no_other_process() -> None:
    """supervisord's respawn served the lease too, and is restarted as any other."""
    lost = instance("leased", pid=7).after(LOST, NOW)
    assert not lost.after(InstanceEvent.RETURNED_DIRTY, NOW).process_replaced
    assert instance("recycling", pid=7).after(LOST, NOW).process_replaced


def test_what_is_looked_at_soon() -> None:
    assert needs_look(instance("starting"))
    assert needs_look(instance("leased")), "it waits for its next process"
    assert not needs_look(instance("leased", operator_stopped=True))
    assert not needs_look(instance("leased", **LOOPS))
    assert not needs_look(instance("registered")), "it waits for its turn"
    assert not needs_look(instance("idle", pid=7))


def test_a_slow_instance_gets_at_least_its_start_limit_before_it_is_tried_again() -> None:
    backoff = Backoff(1.0, 60.0)
    assert retry_delay(instance("starting"), backoff, 20.0, 0.0) == 20.0
    assert retry_delay(instance("starting", **LOOPS), backoff, 20.0, 0.0) == 1.0
    assert retry_delay(instance("starting", failures=9), backoff, 20.0, 0.0) == 60.0


def test_the_next_start_is_of_the_service_that_has_least_and_was_not_refused() -> None:
    many = [Instance("many", 2000 + n, "m", InstanceState.IDLE) for n in range(3)]
    waiting = [
        Instance("many", 2010, "m", InstanceState.REGISTERED),
        Instance("few", 2011, "f", InstanceState.REGISTERED, start_refused_at=5.0),
        Instance("few", 2012, "f", InstanceState.REGISTERED),
    ]
    order = []
    while (chosen := next_start([*many, *waiting])) is not None:
        order.append(chosen.port)
        waiting.remove(chosen)
    assert order == [2012, 2010, 2011]


def test_a_new_process_of_one_that_an_operator_stopped_was_started_by_an_operator() -> None:
    assert not instance("leased", operator_stopped=True).saw(7).operator_stopped
