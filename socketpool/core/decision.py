"""What is to be done about an instance, decided from what is known of it and what was observed.

Without I/O: the server fills an `Observation` with what supervisord, the kernel and the probes say,
`decide` answers with actions, and the server performs them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from socketpool.core.lifecycle import HELD, MOVING, InstanceEvent, InstanceState
from socketpool.core.records import EXITS_BEFORE_FAILED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from socketpool.core.backoff import Backoff
    from socketpool.core.records import Instance


Fact = Literal["halted", "operator_stopped", "probe_failed", "process_replaced"]


class Reported(StrEnum):
    """What supervisord says of an instance."""

    NOTHING = "nothing"  # it was not asked
    UNKNOWN = "unknown"  # it has no such program: an operator removed its group
    STOPPED = "stopped"  # there is no process, because somebody told it so
    FATAL = "fatal"  # there is no process, because supervisord gave up starting it
    BETWEEN = "between"  # there is no process; supervisord starts the next one by itself
    RUNNING = "running"  # there is a process
    STOPPING = "stopping"  # there is a process that was told to end


AT_REST = frozenset({Reported.STOPPED, Reported.FATAL})
"""There is no process, and supervisord starts none by itself."""


class Observation(NamedTuple):
    """What was observed of one instance at one moment.

    ``pid`` is the process that supervisord names, 0 for none.  ``ended`` says that the kernel has
    told the end of the process that the instance had.  ``ready`` says that the process ``pid``
    listens on the instance's port and that its readiness probe has passed.  ``complaint`` is why an
    instance that was ready does not work, empty when nothing is known against it; it is
    ``certain`` when another probe is not needed, and ``answered`` says that a probe has passed.
    ``retiring`` says that the instance's block is being given up.  ``start_limit`` is how many
    seconds it may take to become ready.
    """

    reported: Reported = Reported.NOTHING
    pid: int = 0
    ended: bool = False
    ready: bool = False
    complaint: str = ""
    certain: bool = False
    answered: bool = False
    retiring: bool = False
    start_limit: float = inf


@dataclass(frozen=True, slots=True)
class Happen:
    """Let the event happen in the pool's tables; ``reason`` says why, where that is not obvious."""

    event: InstanceEvent
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Saw:
    """Note the process that the instance has now; 0 for none."""

    pid: int


@dataclass(frozen=True, slots=True)
class Note:
    """Note a fact about the instance."""

    fact: Fact
    value: bool


@dataclass(frozen=True, slots=True)
class UpToDate:
    """Note that the process was started after its service was changed."""


@dataclass(frozen=True, slots=True)
class RetryNow:
    """Don't wait any longer before the failed instance is tried again."""


@dataclass(frozen=True, slots=True)
class Start:
    """Have supervisord start it; when that is done, it is spawned."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Have supervisord stop it.  In the moment between an exit and a respawn supervisord can't."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill its process at once: a process that hangs may not react to anything else."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Give it up for a while, and keep the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget it: supervisord does not know it any more."""


Action = Happen | Saw | Note | UpToDate | RetryNow | Start | Stop | Kill | Fail | Remove


def decide(instance: Instance, seen: Observation, now: float) -> list[Action]:
    """What is to be done, in this order; ``now`` is in monotonic seconds.

    `Start` and `Stop`, which ask supervisord, are only decided on what supervisord has reported,
    and come last.
    """
    decision = _Decision(instance, seen, now)
    if seen.ended and instance.pid:
        decision.lose()
    if seen.reported is Reported.UNKNOWN:
        decision.vanish()
    elif seen.reported is not Reported.NOTHING:
        decision.identify()
        decision.judge()
    decision.hear_probe()
    return decision.actions


def needs_look(instance: Instance) -> bool:
    """Whether supervisord is to be asked about it soon, because something is about to happen.

    That is so while it is on its way, and while a leased one waits for supervisord to respawn it.
    A leased one that exits again and again is left to the slower pace at which all instances are
    looked at, and one that was not started yet waits for its turn.
    """
    if instance.state in HELD:
        loops = instance.exits >= EXITS_BEFORE_FAILED
        return not (instance.pid or loops or instance.operator_stopped)
    return instance.state in MOVING and instance.state is not InstanceState.REGISTERED


def is_overdue(instance: Instance, start_limit: float, now: float) -> bool:
    """Whether a starting instance is past its start limit or has exited too often in a row."""
    return instance.state is InstanceState.STARTING and (
        instance.exits >= EXITS_BEFORE_FAILED or now - instance.since > start_limit
    )


def retry_delay(instance: Instance, backoff: Backoff, start_limit: float, chance: float) -> float:
    """How many seconds to wait before an instance that fails now is tried again.

    ``chance`` is a random number in [0, 1).  An instance that did not exit may only be slow, and
    gets at least another start limit.
    """
    delay = backoff.delay(instance.failures + 1, chance)
    if instance.exits < EXITS_BEFORE_FAILED and start_limit < inf:
        return max(delay, start_limit)
    return delay


def next_start(instances: Iterable[Instance]) -> Instance | None:
    """Which registered instance is to be started next, None when there is none.

    One whose start was refused comes after the others, and a service that has little running comes
    before one that has much.
    """
    running: Counter[str] = Counter()
    registered = []
    for instance in instances:
        if instance.state is InstanceState.REGISTERED:
            registered.append(instance)
        else:
            running[instance.service] += 1
    return min(
        registered,
        key=lambda i: (i.start_refused_at, running[i.service], i.port),
        default=None,
    )


def replacements(
    instances: Iterable[Instance], started: Mapping[int, float]
) -> list[tuple[Instance, Action]]:
    """How instances of changed services are replaced: one of each service at a time.

    ``started`` has for the port of each outdated instance with a process when that process started,
    in seconds of CLOCK_BOOTTIME.  When an instance fails in its new form, the others stay as they
    are.
    """
    every = list(instances)
    # What counts is the start of the process, not when it was noticed: supervisord may have started
    # it just before the change.
    current = [i for i in every if i.outdated_since and started.get(i.port, 0) >= i.outdated_since]
    outdated = [i for i in every if i.outdated_since and i not in current]
    actions: list[tuple[Instance, Action]] = [(instance, UpToDate()) for instance in current]
    # A leased one is marked and is replaced when its lease ends; meanwhile no other is marked.
    marked = {i.service for i in outdated if i.state is InstanceState.LEASED and i.dirty}
    busy = {
        i.service
        for i in every
        if i.state in MOVING or (i.state is InstanceState.FAILED and i not in outdated)
    }
    # An idle one first; of those that are leased, the last to be: its lease may be a short one.
    outdated.sort(key=lambda i: (i.state is not InstanceState.IDLE, -i.since, i.port))
    for instance in outdated:
        if instance.state is InstanceState.FAILED:
            if instance.retry_at:
                actions.append((instance, RetryNow()))
        elif instance.service not in busy and (
            instance.state is InstanceState.IDLE
            or (instance.state is InstanceState.LEASED and instance.service not in marked)
        ):
            busy.add(instance.service)
            actions.append((instance, Happen(InstanceEvent.DISTRUSTED)))
    return actions


class _Decision:
    """The actions so far, and the instance as it is after them."""

    def __init__(self, instance: Instance, seen: Observation, now: float) -> None:
        self.actions: list[Action] = []
        self._instance = instance
        self._seen = seen
        self._now = now

    # -- the process -------------------------------------------------------------------------

    def lose(self) -> None:
        """The process that the instance had has ended."""
        if self._instance.state in {InstanceState.REGISTERED, InstanceState.STOPPED}:
            self._saw(0)
        else:
            self._happen(InstanceEvent.LOST)

    def vanish(self) -> None:
        """supervisord does not know it any more."""
        if self._instance.pid:
            self.lose()
        self._note("operator_stopped", value=True)
        gone = {InstanceState.DRAINING, InstanceState.STOPPING, InstanceState.STOPPED}
        if self._instance.state not in gone:
            self._happen(InstanceEvent.DRAINED)
        if self._instance.state is InstanceState.STOPPING:
            self._happen(InstanceEvent.STOPPED)
        if self._instance.state is InstanceState.STOPPED:
            self.actions.append(Remove())

    def identify(self) -> None:
        """Note which process it has, and whether that is a new one."""
        pid = self._seen.pid
        if pid == self._instance.last_pid:
            pid = 0  # supervisord has not noticed the exit yet that the kernel told us
        if self._instance.pid and pid != self._instance.pid:
            was_replaced = self._instance.process_replaced
            self.lose()
            if pid and not was_replaced:
                # The exit was missed, so this process may have been there during the lease already.
                self._note("process_replaced", value=False)
        if pid and pid != self._instance.pid:
            self._saw(pid)

    # -- the state ---------------------------------------------------------------------------

    def judge(self) -> None:
        """What follows from supervisord's report in the state in which the instance is."""
        match self._instance.state:
            case InstanceState.STARTING | InstanceState.FAILED:
                self._judge_starting()
            case InstanceState.RECYCLING:
                self._recycle()
            case InstanceState.STOPPING:
                self._stop()
            case InstanceState.REGISTERED | InstanceState.STOPPED if self._instance.pid:
                self._happen(InstanceEvent.SPAWNED)  # an operator has started it
                if self._seen.retiring:
                    self._happen(InstanceEvent.DRAINED)
            case InstanceState.LEASED | InstanceState.DRAINING:
                stopped = self._seen.reported is Reported.STOPPED
                self._note("operator_stopped", value=stopped)

    def _judge_starting(self) -> None:
        is_loop = self._instance.exits >= EXITS_BEFORE_FAILED
        is_starting = self._instance.state is InstanceState.STARTING
        if is_starting and self._seen.reported is Reported.STOPPED:
            self._happen(InstanceEvent.STOPPED)  # by an operator
        elif self._instance.pid and self._seen.ready and not is_loop:
            self._happen(InstanceEvent.READY)
        elif not is_starting:
            self._try_again()
        elif is_overdue(self._instance, self._seen.start_limit, self._now):
            self.actions.append(Fail())

    def _try_again(self) -> None:
        """What exits again and again is halted until then; what is only slow may go on."""
        is_time = self._now >= self._instance.retry_at
        if self._seen.reported in AT_REST:
            if is_time:
                self.actions.append(Start())
            else:
                self._note("halted", value=True)
        elif self._instance.halted and self._instance.pid:
            self._happen(InstanceEvent.SPAWNED)  # an operator has started it
        elif is_time or self._instance.exits >= EXITS_BEFORE_FAILED:
            self._stop()

    def _recycle(self) -> None:
        """Have another process in its place; one that was there while it was leased won't do."""
        if self._seen.reported in AT_REST:
            if self._instance.operator_stopped:
                self._happen(InstanceEvent.STOPPED)
            else:
                self.actions.append(Start())
        elif self._instance.pid and self._instance.process_replaced:
            self._happen(InstanceEvent.SPAWNED)  # supervisord has respawned it
        elif self._instance.pid:
            self._stop()

    def _stop(self) -> None:
        if self._seen.reported in AT_REST:
            if self._instance.state is InstanceState.STOPPING:
                self._happen(InstanceEvent.STOPPED)
        elif self._seen.reported is not Reported.STOPPING:
            self.actions.append(Stop())

    # -- probes ------------------------------------------------------------------------------

    def hear_probe(self) -> None:
        """What a probe says of an instance that was ready.

        It is replaced after two failures in a row.  A leased one is its holder's, but nobody else
        gets it as it is.
        """
        is_up = self._instance.state is InstanceState.IDLE or self._instance.state in HELD
        if self._instance.dirty or not (is_up and self._instance.pid):
            return
        if self._seen.answered:
            self._note("probe_failed", value=False)
        elif self._seen.complaint and (self._seen.certain or self._instance.probe_failed):
            self._happen(InstanceEvent.DISTRUSTED, self._seen.complaint)
            if self._instance.state not in HELD:
                self.actions.append(Kill())
        elif self._seen.complaint:
            self._note("probe_failed", value=True)

    # -- what each action makes of the instance ----------------------------------------------

    def _happen(self, event: InstanceEvent, reason: str = "") -> None:
        self.actions.append(Happen(event, reason))
        self._instance = self._instance.after(event, self._now)

    def _saw(self, pid: int) -> None:
        self.actions.append(Saw(pid))
        self._instance = self._instance.saw(pid)

    def _note(self, fact: Fact, *, value: bool) -> None:
        if getattr(self._instance, fact) is not value:
            self.actions.append(Note(fact, value))
            self._instance = self._instance.noting(fact, value=value)
