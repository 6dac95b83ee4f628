"""The receipt: what left, what changed and what stayed, with digests, for the user's records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from socketpool.archive.commit import Replacement, open_folder, sweep
from socketpool.archive.inflate import chunks
from socketpool.archive.names import text

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from socketpool.archive.plan import Plan
    from socketpool.archive.reader import Archive
    from socketpool.archive.report import MergeReport

_FORMAT = 1


class SentMember(NamedTuple):
    """A member that left."""

    name: bytes
    size: int
    sha256: str


def digest_members(archive: Archive, ordinals: array[int]) -> Iterator[SentMember]:
    """Unpack members for their SHA-256; raises when one's content is not what it claims."""
    import hashlib  # noqa: PLC0415 - loads a large library that few runs need

    for ordinal in ordinals:
        member = archive.member(ordinal)
        digest = hashlib.sha256()
        for chunk in chunks(member, archive.read, archive.local(member).data):
            digest.update(chunk)
        yield SentMember(member.name, member.size, digest.hexdigest())


def build_receipt(
    *,
    source: Path,
    plan: Plan,
    policy: str = "",
    sent: Iterable[SentMember],
    report: MergeReport | None,
    lease: str = "",
    server: str = "",
    started: datetime | None = None,
    finished: datetime | None = None,
) -> dict[str, Any]:
    """A receipt ready for JSON; ``report`` is None when nothing came back.

    Names are text as far as they are UTF-8, with other bytes as ``\\xNN``.
    """
    receipt: dict[str, Any] = {
        "format": _FORMAT,
        "source": str(source),
        "policy": policy,
        "lease": lease,
        "server": server,
        "started": started.isoformat() if started else None,
        "finished": finished.isoformat() if finished else None,
        "sent": [
            {"name": shown(each.name), "bytes": each.size, "sha256": each.sha256} for each in sent
        ],
        "kept_back": {"members": plan.kept_members, "bytes": plan.kept_bytes},
    }
    if report is not None:
        receipt["result"] = str(report.path)
        receipt["changed"] = [
            {
                "name": shown(each.name),
                "bytes_before": each.size_before,
                "bytes": each.size,
                "crc32": f"{each.crc:08x}",
                "sha256": each.sha256 or None,
            }
            for each in report.changed
        ]
        receipt["unchanged"] = [shown(name) for name in report.unchanged]
        receipt["not_returned"] = report.missing
    return receipt


def write_receipt(path: Path, receipt: dict[str, Any]) -> None:
    """Write a receipt as JSON; an existing file is replaced whole or not at all."""
    import json  # noqa: PLC0415

    folder = open_folder(path.parent)
    try:
        sweep(folder)
        with Replacement(folder, os.fsencode(path.name)) as out:
            out.write(json.dumps(receipt, indent=2).encode() + b"\n")
            out.commit()
    finally:
        os.close(folder)


def shown(name: bytes) -> str:
    """A name for JSON, where every character is escaped anyway."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode(errors="backslashreplace") if not name.isascii() else text(name)
