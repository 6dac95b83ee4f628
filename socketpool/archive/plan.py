"""The plan: for each member whether it leaves and which rule says so.  Making one sends nothing.

The policy judges names; this module adds what holds whatever the name is: links, folders, encrypted
members and the like never leave, and neither does what the user's hook takes out.  Verdicts are
kept as one number a member.
"""

from __future__ import annotations

import os
import unicodedata
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from socketpool.archive.names import sent_name, show, text
from socketpool.archive.policy import Decision
from socketpool.archive.refusals import (
    HookFailed,
    NameMismatch,
    NothingToSend,
    SourceUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.archive.policy import Policy


UNREADABLE: Final = "folder that can't be read"
"""What a source says of a folder that it offers because it can't look into it."""


class Candidate(NamedTuple):
    """A member as the user's hook sees it."""

    raw_name: bytes
    size: int
    packed: int

    @property
    def name(self) -> str:
        """The name as text, with ``/`` between folders."""
        return text(self.raw_name)


if TYPE_CHECKING:
    Hook = Callable[[Candidate], bool]


class Offer(NamedTuple):
    """A member as a source offers it."""

    name: bytes
    size: int
    packed: int
    never: str
    """Why it can't be sent; empty if it can."""
    other: bytes
    """A second name that the archive gives it; empty without one."""
    known: bool
    """Whether one of the names is certain to be Unicode."""


class Source(Protocol):
    """Something with members: a zip or a directory.  Offers must come in a stable order."""

    def offers(self) -> Iterator[tuple[bytes, int, int, str, bytes, bool]]:
        """Every member as the fields of an :class:`Offer`."""

    def vet(self, ordinal: int) -> None:
        """Look closer at a member that would be sent; raises ArchiveError."""


class PlannedMember(NamedTuple):
    """One line of a plan."""

    name: bytes
    size: int
    packed: int
    send: bool
    rule: str


class RuleTotal(NamedTuple):
    """What one rule decided."""

    rule: str
    send: bool
    members: int
    bytes: int


class Plan:
    """Decisions about all members of a source, in its order."""

    __slots__ = ("_decisions", "_totals", "_verdicts", "sent", "sent_packed", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sent = array("I")
        """Ordinals of the members that leave."""
        self.sent_packed = 0
        self._verdicts = array("I")
        self._decisions: list[Decision] = []
        self._totals: list[list[int]] = []

    def __len__(self) -> int:
        return len(self._verdicts)

    def __iter__(self) -> Iterator[PlannedMember]:
        """The members with their decisions; reads the source again."""
        for verdict, (name, size, packed, *_) in zip(
            self._verdicts, self.source.offers(), strict=True
        ):
            yield PlannedMember(name, size, packed, *self._decisions[verdict])

    @property
    def sent_bytes(self) -> int:
        """Unpacked size of what leaves."""
        return sum(each.bytes for each in self.totals() if each.send)

    @property
    def kept_members(self) -> int:
        """How many stay."""
        return len(self) - len(self.sent)

    @property
    def kept_bytes(self) -> int:
        """Unpacked size of what stays."""
        return sum(each.bytes for each in self.totals() if not each.send)

    def totals(self) -> list[RuleTotal]:
        """Members and bytes by rule, in the order rules first applied."""
        return [
            RuleTotal(rule, send, members, size)
            for (send, rule), (members, size) in zip(self._decisions, self._totals, strict=True)
            if members
        ]


def make_plan(source: Source, policy: Policy, is_implodable: Hook | None = None) -> Plan:
    """Decide about every member of ``source``.

    ``is_implodable`` is asked only about members the policy would send, and True keeps one at home:
    it can hold back more, never less.  Raises :class:`HookFailed` if it fails, so that nothing is
    sent on a guess.
    """
    plan = Plan(source)
    known: dict[Decision | str, int] = {}
    verdicts, sent, decisions, totals = plan._verdicts, plan.sent, plan._decisions, plan._totals
    decide, vet, odd = policy.decide, source.vet, False
    mismatch: NameMismatch | None = None
    for ordinal, (name, size, packed, never, other, certain) in enumerate(source.offers()):
        if never == UNREADABLE:
            decision = _judge_unreadable(name, policy)
        elif never:
            decision = Decision(send=False, rule=never)
        else:
            decision = decide(name, other, known=certain)
        if decision.send:
            if is_implodable is not None and _held_back(
                is_implodable, Candidate(name, size, packed)
            ):
                decision = _HOOK
            else:
                try:
                    vet(ordinal)
                except NameMismatch as error:
                    mismatch = error
                    decision = _TWO_NAMES
                else:
                    sent.append(ordinal)
                    plan.sent_packed += packed
                    odd = odd or not name.isascii() or name[:1] in _ODD_STARTS or b"\\" in name
        rule = decision.rule
        verdict = known.get(rule)
        if verdict is None:
            verdict = known[rule] = len(decisions)
            decisions.append(decision)
            totals.append([0, 0])
        verdicts.append(verdict)
        total = totals[verdict]
        total[0] += 1
        total[1] += size
    if mismatch is not None and not sent:
        raise mismatch
    if odd:
        _keep_twins(plan, known)
    return plan


def _keep_twins(plan: Plan, known: dict[Decision | str, int]) -> None:
    """Keep members at home whose names are one when they are read, though their bytes differ."""
    chosen = set(plan.sent)
    readings: dict[str, list[tuple[int, int, int]]] = {}
    for ordinal, (name, size, packed, *_) in enumerate(plan.source.offers()):
        if ordinal in chosen:
            read = unicodedata.normalize("NFC", text(sent_name(name)).replace("\\", "/"))
            readings.setdefault(read, []).append((ordinal, size, packed))
    twins = [each for group in readings.values() if len(group) > 1 for each in group]
    if not twins:
        return
    verdict = known.setdefault(_TWINS.rule, len(plan._decisions))
    if verdict == len(plan._decisions):
        plan._decisions.append(_TWINS)
        plan._totals.append([0, 0])
    for ordinal, size, packed in twins:
        before = plan._totals[plan._verdicts[ordinal]]
        before[0] -= 1
        before[1] -= size
        plan._verdicts[ordinal] = verdict
        plan._totals[verdict][0] += 1
        plan._totals[verdict][1] += size
        plan.sent_packed -= packed
        chosen.discard(ordinal)
    plan.sent = array("I", (ordinal for ordinal in plan.sent if ordinal in chosen))


def _judge_unreadable(name: bytes, policy: Policy) -> Decision:
    """A folder that can't be read is no failure if nothing in it may leave anyway."""
    decision = policy.decide(name + b"x")
    if decision.rule.startswith("deny: "):
        return Decision(send=False, rule=f"{UNREADABLE}; {decision.rule}")
    raise SourceUnreadable(
        f"the folder {show(name)} can't be read",
        hint='make it readable, or add it to "deny" in the policy; nothing was sent',
    )


def check_not_empty(plan: Plan, name: str) -> None:
    """Raise :class:`NothingToSend`, with the reasons, when no member of ``name`` leaves."""
    if plan.sent:
        return
    reasons = sorted(plan.totals(), key=lambda each: -each.members)
    told = ", ".join(f"{each.rule} ({each.members:,})" for each in reasons[:_MAX_REASONS])
    more = f" and {len(reasons) - _MAX_REASONS} more reasons" if reasons[_MAX_REASONS:] else ""
    raise NothingToSend(
        f"nothing of {show(os.fsencode(name))} would be sent: {told or 'it has no members'}{more}",
        hint="see which rules apply with: socketpool plan FILE; to go on all the same there is"
        " --allow-empty",
    )


_MAX_REASONS: Final = 5
_ODD_STARTS: Final = (b"/", b".")
_TWO_NAMES = Decision(send=False, rule="another name beside its data")
_TWINS = Decision(send=False, rule="name appears twice, in two forms")
_HOOK = Decision(send=False, rule="held back by is_implodable")


def _held_back(is_implodable: Hook, candidate: Candidate) -> bool:
    shown = show(candidate.raw_name)
    try:
        answer: object = is_implodable(candidate)
    except Exception as error:
        raise HookFailed(
            f"is_implodable failed on {shown}: {type(error).__name__}: {error}",
            hint="Nothing was sent. Correct the hook and try again.",
        ) from error
    if not isinstance(answer, bool):
        raise HookFailed(
            f"is_implodable answered {type(answer).__name__} on {shown} instead of a bool.",
            hint="Nothing was sent. Return True to keep the member at home.",
        )
    return answer
