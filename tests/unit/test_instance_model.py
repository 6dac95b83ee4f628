"""Instances under every interleaving of exits, probes, operators' commands, reloads and drains.

The model has a supervisord and processes of its own; the table of the pool and `decide` are the
real ones.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from socketpool.core.backoff import JITTER, Backoff
from socketpool.core.decision import (
    Action,
    Fail,
    Happen,
    Kill,
    Note,
    Observation,
    Remove,
    Reported,
    RetryNow,
    Saw,
    Start,
    Stop,
    UpToDate,
    decide,
    needs_look,
    next_start,
    replacements,
    retry_delay,
)
from socketpool.core.lifecycle import (
    HELD,
    INSTANCE,
    InstanceEvent,
    InstanceState,
    LeaseEvent,
)
from socketpool.core.pool import Exhausted, Pool
from socketpool.core.ports import PortRange
from socketpool.core.records import EXITS_BEFORE_FAILED, Instance, ServicePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKOFF = Backoff(1.0, 60.0)
START_LIMIT = 5.0
PLANS = (
    ServicePlan("plain", warm=1, max_instances=1, restart=True, start_limit=START_LIMIT),
    ServicePlan("sdk", warm=1, max_instances=1, restart=False, start_limit=START_LIMIT),
)
NAMES = [plan.name for plan in PLANS]
PORTS = PortRange(2000, 2001)


ALWAYS = (
    "lease",
    "release",
    "everything_is_looked_at",
    "all_goes_well_for_a_moment",
    "all_comes_to_a_good_end",
)
KINDS = (
    ("grow", "supervisorctl_stop", "supervisorctl_remove"),
    ("the_starter_has_its_turn", "what_moves_is_looked_at", "time_passes"),
    ("drain", "undo_a_drain"),
    ("give_a_block_up", "remove_blocks_at_rest", "grow"),
    ("reload", "a_process_becomes_ready"),
    ("a_process_ends", "supervisord_notices"),
    ("a_process_ends", "supervisord_gives_up", "time_passes"),
    ("a_probe_says",),
    ("supervisorctl_stop", "supervisorctl_start"),
)
"""What may happen besides leases and looks.  A few of these in each run, so that they meet."""


@dataclass
class Program:
    """One program of the model's supervisord, in a group of its own."""

    state: Reported = Reported.STOPPED
    pid: int = 0
    started: float = 0.0
    ended: bool = False  # the process has ended, and supervisord has not noticed it yet
    ready: bool = False
    told_to_stop: bool = False  # the last command of an operator was to stop it
    operated: bool = False  # an operator has given it any command


@dataclass
class History:
    """What the model remembers of an instance to judge what is done with it."""

    exits: int = 0  # since it was last started anew, none after a long uptime
    pauses: list[float] = field(default_factory=list)  # since it last had a long uptime


class InstanceMachine(RuleBasedStateMachine):
    """Whatever happens, no instance is forgotten, and every wanted one works again."""

    def __init__(self) -> None:
        super().__init__()
        self.draw: Any = None
        self.kinds: list[str] = []
        self.services: list[str] = []
        ids = map(str, itertools.count(1))
        self.pids = itertools.count(1)
        self.numbers = itertools.count(1)
        self.now = 100.0
        self.pool = Pool(PLANS, PORTS, max_age=1e9, new_id=lambda: next(ids), port_rest=0.0)
        self.programs: dict[str, Program] = {}  # as supervisord has them, by instance
        self.history: dict[str, History] = {}
        self.retiring: set[str] = set()  # blocks
        self.drained: set[str] = set()  # instances
        self.used: dict[int, str] = {}  # process -> the lease that had it
        self.changed_at: dict[str, float] = {}  # service -> when it was last changed

    # -- the world ---------------------------------------------------------------------------

    def program(self, instance: Instance) -> Program | None:
        return self.programs.get(instance.name)

    def spawn(self, program: Program) -> None:
        program.state, program.pid = Reported.RUNNING, next(self.pids)
        program.ended = program.ready = False
        program.started = self.now

    def reap(self, program: Program) -> None:
        """supervisord notices exits, and starts again what it is to keep running."""
        if program.ended:
            program.ended, program.pid, program.ready = False, 0, False
            is_stop = program.state is Reported.STOPPING
            program.state = Reported.STOPPED if is_stop else Reported.BETWEEN

    def some(self, *, alive: bool = False) -> Instance:
        found = sorted(
            port
            for port, i in self.pool.instances.items()
            if not alive or ((p := self.program(i)) is not None and p.pid and not p.ended)
        )
        return self.pool.instances[self.draw(st.sampled_from(found), "port")]

    def alive(self) -> bool:
        return any(
            (p := self.program(i)) is not None and p.pid and not p.ended
            for i in self.pool.instances.values()
        )

    # -- what the server does with a decision ------------------------------------------------

    def perform(self, port: int, actions: Iterable[Action]) -> None:
        for action in actions:
            instance = self.pool.instances[port]
            history = self.history[instance.name]
            match action:
                case Happen(event):
                    self.remember(instance, history, event)
                    self.pool.apply(port, event, self.now)
                case Saw(pid):
                    self.pool.saw(port, pid)
                case Note() | UpToDate() | RetryNow():
                    self.note(port, action)
                case Start():
                    self.start(instance)
                case Stop():
                    self.stop(instance)
                case Kill():
                    self.kill(instance)
                case Fail():
                    self.fail(instance, history)
                case Remove():
                    assert instance.name not in self.programs
                    self.pool.remove(port, self.now)

    def note(self, port: int, action: Note | UpToDate | RetryNow) -> None:
        match action:
            case Note(fact, value):
                self.pool.note(port, fact, value=value)
            case UpToDate():
                self.pool.note(port, "outdated_since", value=0.0)
            case RetryNow():
                self.pool.note(port, "retry_at", value=0.0)

    def kill(self, instance: Instance) -> None:
        assert instance.state not in HELD, "it is its holder's"
        program = self.programs.get(instance.name)
        if program is not None and program.pid == instance.pid:
            program.ended = True

    def remember(self, instance: Instance, history: History, event: InstanceEvent) -> None:
        if event is InstanceEvent.SPAWNED:
            history.exits = 0
        if event is not InstanceEvent.LOST:
            return
        was_up = instance.state is InstanceState.IDLE or instance.state in HELD
        if was_up and self.now - instance.up_since >= 10.0:
            history.exits = 0
            history.pauses.clear()
        history.exits += 1

    def start(self, instance: Instance) -> None:
        assert instance.state in {InstanceState.RECYCLING, InstanceState.FAILED}
        if instance.state is InstanceState.FAILED:
            assert self.now >= instance.retry_at, "a pause is kept"
        program = self.programs[instance.name]
        assert program.state in {Reported.STOPPED, Reported.FATAL}
        self.spawn(program)
        self.perform(instance.port, [Happen(InstanceEvent.SPAWNED)])

    def stop(self, instance: Instance) -> None:
        assert instance.state not in HELD, "it is its holder's"
        assert instance.state is not InstanceState.IDLE
        program = self.programs[instance.name]
        self.reap(program)
        if program.state is Reported.RUNNING:  # between two processes it can't be stopped
            program.state = Reported.STOPPING

    def fail(self, instance: Instance, history: History) -> None:
        chance = 0.5
        pause = retry_delay(instance, BACKOFF, START_LIMIT, chance)
        assert pause >= BACKOFF.first * (1 - JITTER)
        limit = BACKOFF.max_seconds * (1 - JITTER * chance)
        if history.pauses and pause < limit:
            assert pause > history.pauses[-1] or pause == START_LIMIT, "pauses grow"
        history.pauses.append(pause)
        self.pool.fail(instance.port, self.now + pause, self.now)

    # -- observations ------------------------------------------------------------------------

    def observe(self, instance: Instance) -> Observation:
        program = self.program(instance)
        if program is None:
            return Observation(Reported.UNKNOWN)
        return Observation(
            program.state,
            program.pid,
            ready=program.ready and not program.ended,
            retiring=instance.block in self.retiring,
            start_limit=START_LIMIT,
        )

    def look(self, *, everywhere: bool = True) -> None:
        for port in sorted(self.pool.instances):
            instance = self.pool.instances[port]
            if everywhere or needs_look(instance):
                self.perform(port, decide(instance, self.observe(instance), self.now))
        begun = {
            port: program.started
            for port, i in self.pool.instances.items()
            if (program := self.program(i)) is not None and i.pid and program.pid == i.pid
        }
        for instance, action in replacements(self.pool.instances.values(), begun):
            assert isinstance(action, Happen | UpToDate | RetryNow)
            self.perform(instance.port, [action])

    def calm(self) -> None:
        """Programs work, supervisord does what it has to, and the server sees all of it."""
        self.now += 2.0
        for program in self.programs.values():
            if program.state is Reported.STOPPING:
                program.ended = True
            if program.state is Reported.BETWEEN:
                self.spawn(program)
            self.reap(program)
        for _ in self.pool.instances:
            self.start_next()
        for program in self.programs.values():
            program.ready = program.state is Reported.RUNNING
        self.look()

    def start_next(self) -> None:
        instance = next_start(self.pool.instances.values())
        if instance is None:
            return
        program = self.program(instance)
        if program is None:  # refused: supervisord does not know it
            self.pool.note(instance.port, "start_refused_at", value=self.now)
            return
        if program.state in {Reported.STOPPED, Reported.FATAL}:
            self.spawn(program)
        self.perform(instance.port, [Happen(InstanceEvent.SPAWNED)])

    # -- rules: the pool ---------------------------------------------------------------------

    @initialize(
        kinds=st.sets(st.sampled_from(KINDS), min_size=1, max_size=3),
        services=st.sampled_from([NAMES, ["plain"], ["sdk"]]),
    )
    def begin(self, kinds: set[tuple[str, ...]], services: list[str]) -> None:
        self.kinds = [*ALWAYS, *sorted({kind for some in kinds for kind in some})]
        self.services = services
        for service in services:
            self.register(service)
        self.calm()
        self.calm()

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        self.draw = data.draw
        kind = data.draw(st.sampled_from(self.kinds), "kind")
        if self.pool.instances or kind == "grow":
            getattr(self, kind)()

    def all_goes_well_for_a_moment(self) -> None:
        self.calm()

    def grow(self) -> None:
        service = self.draw(st.sampled_from(self.services), "service")
        self.register(service)

    def register(self, service: str) -> None:
        for run in self.pool.plan_growth(service, 1, self.now):
            for port in run:
                block = f"{service}.{next(self.numbers)}"
                instance = Instance(service, port, block, InstanceState.REGISTERED, self.now)
                self.programs[instance.name] = Program()
                self.history[instance.name] = History()
                self.pool.add(instance)

    def lease(self) -> None:
        service = self.draw(st.sampled_from(self.services), "service")
        try:
            lease = self.pool.grant([service], ttl=1e9, key="", now=self.now)
        except Exhausted:
            return
        self.pool.activate(lease.id, 0.0)
        for grant in lease.grants:
            program = self.programs.get(grant.instance)
            if service == "plain" and program is not None and program.pid:
                assert program.pid not in self.used, "another lease had this process"

    def release(self) -> None:
        if not self.pool.leases:
            return
        lease = self.draw(st.sampled_from(sorted(self.pool.leases)), "lease")
        self.pool.end(lease, LeaseEvent.RELEASE, self.now)

    def the_starter_has_its_turn(self) -> None:
        self.start_next()

    def everything_is_looked_at(self) -> None:
        self.look()

    def what_moves_is_looked_at(self) -> None:
        self.look(everywhere=False)

    def drain(self) -> None:
        instance = self.some()
        self.drained.add(instance.name)
        if INSTANCE.allows(instance.state, InstanceEvent.DRAINED):
            self.pool.apply(instance.port, InstanceEvent.DRAINED, self.now)

    def undo_a_drain(self) -> None:
        if not self.drained:
            return
        name = self.draw(st.sampled_from(sorted(self.drained)), "name")
        self.drained.discard(name)
        for instance in [i for i in self.pool.instances.values() if i.name == name]:
            is_ours = instance.block not in self.retiring
            if is_ours and INSTANCE.allows(instance.state, InstanceEvent.RESUMED):
                self.pool.apply(instance.port, InstanceEvent.RESUMED, self.now)

    def give_a_block_up(self) -> None:
        instance = self.some()
        self.retiring.add(instance.block)
        if INSTANCE.allows(instance.state, InstanceEvent.DRAINED):
            self.pool.apply(instance.port, InstanceEvent.DRAINED, self.now)

    def remove_blocks_at_rest(self) -> None:
        for port, instance in list(self.pool.instances.items()):
            self.remove_if_at_rest(port, instance)

    def remove_if_at_rest(self, port: int, instance: Instance) -> None:
        if instance.block in self.retiring and instance.state is InstanceState.STOPPED:
            program = self.program(instance)
            if program is None or program.state in {Reported.STOPPED, Reported.FATAL}:
                self.programs.pop(instance.name, None)
                self.pool.remove(port, self.now)

    def reload(self) -> None:
        service = self.draw(st.sampled_from(self.services), "service")
        self.changed_at[service] = self.now
        for instance in list(self.pool.instances.values()):
            if instance.service == service:
                self.pool.note(instance.port, "outdated_since", value=self.now)

    def time_passes(self) -> None:
        self.now += self.draw(st.sampled_from([0.1, 1.0, 6.0, 20.0]), "seconds")

    # -- rules: processes --------------------------------------------------------------------

    def a_process_ends(self) -> None:
        """The kernel tells it, if the process was noticed before."""
        if not self.alive():
            return
        instance = self.some(alive=True)
        program = self.programs[instance.name]
        program.ended, program.ready = True, False
        if self.draw(st.booleans(), "told") and program.pid == instance.pid:
            self.perform(instance.port, decide(instance, Observation(ended=True), self.now))

    def a_process_becomes_ready(self) -> None:
        if self.alive():
            self.programs[self.some(alive=True).name].ready = True

    def supervisord_notices(self) -> None:
        program = self.program(self.some())
        if program is not None:
            if program.state is Reported.BETWEEN:
                self.spawn(program)
            self.reap(program)

    def supervisord_gives_up(self) -> None:
        program = self.program(self.some())
        if program is not None and program.state is Reported.BETWEEN:
            program.state = Reported.FATAL

    def a_probe_says(self) -> None:
        passes = self.draw(st.booleans(), "passes")
        certain = not passes and self.draw(st.booleans(), "certain")
        instance = self.some()
        complaint = "" if passes else "it does not answer"
        seen = Observation(complaint=complaint, certain=certain, answered=passes)
        actions = decide(instance, seen, self.now)
        if not certain and not instance.probe_failed:
            assert not any(isinstance(action, Happen | Kill) for action in actions)
        self.perform(instance.port, actions)

    # -- rules: operators --------------------------------------------------------------------

    def supervisorctl_stop(self) -> None:
        program = self.program(self.some())
        if program is not None:
            program.told_to_stop = program.operated = True
            self.reap(program)
            if program.state in {Reported.RUNNING, Reported.STOPPING}:
                program.state, program.ended = Reported.STOPPING, True
                self.reap(program)
            else:
                program.state = Reported.STOPPED

    def supervisorctl_start(self) -> None:
        program = self.program(self.some())
        if program is not None:
            program.told_to_stop, program.operated = False, True
            self.reap(program)
            if program.state not in {Reported.RUNNING, Reported.STOPPING}:
                self.spawn(program)

    def supervisorctl_remove(self) -> None:
        instance = self.some()
        program = self.program(instance)
        if program is not None and program.state is Reported.STOPPED:
            del self.programs[instance.name]

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def an_instance_belongs_to_at_most_one_lease(self) -> None:
        held = [g.port for lease in self.pool.leases.values() for g in lease.grants]
        assert len(held) == len(set(held))
        assert set(held) == {p for p, i in self.pool.instances.items() if i.state in HELD}

    @invariant()
    def processes_of_leases_are_remembered(self) -> None:
        for lease in self.pool.leases.values():
            for grant in lease.grants:
                program = self.programs.get(grant.instance)
                if program is not None and program.pid and grant.service == "plain":
                    known = self.used.setdefault(program.pid, lease.id)
                    assert known == lease.id, "a process never serves two leases"

    @invariant()
    def exits_are_bounded_before_it_has_failed(self) -> None:
        for instance in self.pool.instances.values():
            if instance.state is InstanceState.IDLE:
                assert self.history[instance.name].exits < EXITS_BEFORE_FAILED

    # -- the end -----------------------------------------------------------------------------

    def all_comes_to_a_good_end(self) -> None:
        self.come_to_a_good_end()

    def come_to_a_good_end(self) -> None:
        """Nobody does anything any more, and programs work."""
        for lease in list(self.pool.leases):
            self.pool.end(lease, LeaseEvent.RELEASE, self.now)
        for _ in range(60):
            self.calm()
            for port, instance in list(self.pool.instances.items()):
                self.remove_if_at_rest(port, instance)
        for instance in self.pool.instances.values():
            self.assert_at_its_end(instance)

    def teardown(self) -> None:
        self.come_to_a_good_end()

    def assert_at_its_end(self, instance: Instance) -> None:
        program = self.program(instance)
        assert program is not None, f"removed by an operator, and still there: {instance}"
        assert instance.block not in self.retiring, f"given up, and still there: {instance}"
        if instance.name in self.drained:
            is_ended = instance.state is InstanceState.STOPPED
            assert is_ended or program.operated, f"drained, and goes on: {instance}"
        elif not program.told_to_stop:
            assert instance.state is InstanceState.IDLE, f"wanted, and forgotten: {instance}"
        if instance.state is InstanceState.IDLE:
            assert program.state is Reported.RUNNING
            assert (program.pid, instance.outdated_since) == (instance.pid, 0.0)
            assert program.started >= self.changed_at.get(instance.service, 0.0)
            assert instance.service == "sdk" or program.pid not in self.used
        else:
            assert instance.state is InstanceState.STOPPED, f"on its way for ever: {instance}"
            assert program.pid == 0


TestInstanceMachine = InstanceMachine.TestCase
TestInstanceMachine.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
