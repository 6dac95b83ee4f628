"""A run's summary as people read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketpool.client.summary import Summary

MAX_ROWS = 12
"""Members of a receipt that are shown; the file has all of them."""


def summary_lines(s: Summary) -> list[str]:
    """The summary as it is printed."""
    lines = [s.file] if s.members is None else [_members(s), _bytes(s)]
    if s.policy:
        lines.append(f"decided by {s.policy}")
    lines += s.reports
    if s.changed is not None:
        others = "all others" if s.members is None else f"the other {s.members - s.changed}"
        lines.append(f"changed: {s.changed} members; {others} are as they were")
        if s.result and Path(s.result) != Path(s.file).resolve():
            lines.append(f"written to {s.result}")
        if s.backup:
            lines.append(f"the old file is {s.backup}")
    if s.manifest:
        lines.append(f"what left is noted in {s.manifest}")
    if s.receipt:
        lines += _receipt(s)
    of_lease = f"lease {s.lease} " if s.lease else ""
    lines.append(f"took {s.seconds:.2f} s; {of_lease}at {s.server}")
    return lines


def _receipt(s: Summary) -> list[str]:
    """The receipt in short: the members with their digests as far as they fit on a screen."""
    changed = sum(member.changed for member in s.sent_members)
    lines = [
        f"receipt: {s.receipt}",
        f"  {len(s.sent_members)} sent, of which {changed} changed and "
        f"{len(s.sent_members) - changed} unchanged; {s.kept} kept back",
    ]
    for member in s.sent_members[:MAX_ROWS]:
        state = "changed" if member.changed else "-"
        lines.append(f"  {member.sha256[:16]}  {member.bytes:>11,}  {state:<7}  {member.name}")
    if len(s.sent_members) > MAX_ROWS:
        lines.append(f"  … and {len(s.sent_members) - MAX_ROWS} more")
    return lines


def _members(s: Summary) -> str:
    return f"{s.file}: {s.members} members: {s.sent} sent, {s.kept} kept back"


def _bytes(s: Summary) -> str:
    sent, whole = s.sent_bytes or 0, s.source_bytes or 0
    share = sent / whole if whole else 0.0
    return f"left this machine: {sent:,} of {whole:,} bytes" + (
        f" ({share:.1%})" if share < 1 else ""
    )
