"""Choosing the end record: the one decision on which everything else about a zip rests.

Programs differ in which end record they believe when a file holds more than one, and an archive
that two programs read differently must not be sent or changed.  So each candidate has to prove that
a whole central directory of the stated length and count lies where it says, and a second one that
could be believed means refusal.  What lies before (a prefix) and behind (a comment, stray bytes) is
allowed and left to the caller to keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive import ziprecords as r
from socketpool.archive.refusals import (
    AmbiguousArchive,
    DamagedArchive,
    LimitExceeded,
    NotAnArchive,
    UnsupportedArchive,
)
from socketpool.archive.window import read_exactly, read_some

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.archive.limits import Limits

_REACH = 22 + r.M16
"""How far from the end of the file programs look for an end record."""
_MAX_RIVALS = 8
_LARGEST_GAP = 1 << 20
_REPAIR = "Build the archive again with a current zip program."


class Ending(NamedTuple):
    """Where the central directory lies, as said by the end records."""

    position: int
    """Of the end record."""
    zip64: int | None
    """Position of the ZIP64 end record."""
    members: int
    directory: int
    directory_size: int
    shift: int
    """What to add to stored offsets; not zero when a prefix was put in front later."""
    comment_end: int
    """Where the end record with its comment ends; the file may go on."""


def find_ending(fd: int, size: int, limits: Limits) -> Ending:
    """The one end record of the file, or a refusal that says why there isn't one."""
    start = max(0, size - _REACH)
    tail = read_exactly(fd, start, size - start)
    candidates: list[Ending] = []
    at = len(tail)
    while (at := tail.rfind(r.END_SIGNATURE, 0, at)) >= 0:
        candidates += _readings(fd, size, start + at)
        at += 3  # the next signature may not share bytes with this one's last
    chosen = _choose(fd, size, candidates, limits)
    check_count(chosen.members, limits)
    if chosen.directory_size > limits.directory_bytes:
        raise LimitExceeded(
            f"The archive's directory has {chosen.directory_size:,} bytes; the limit is"
            f" {limits.directory_bytes:,}.",
            hint="Split the archive or raise the limit.",
        )
    return chosen


def _choose(fd: int, size: int, candidates: list[Ending], limits: Limits) -> Ending:
    """The one candidate nobody could doubt; they come in order of falling position."""
    if len(candidates) == 1:
        return candidates[0]
    exact = [each for each in candidates if each.comment_end == size]
    likely = (exact + candidates)[:_MAX_RIVALS]  # a thousand of them would be an attack
    chosen = next((each for each in likely if _is_whole(fd, each, limits)), None)
    if chosen is None:
        raise NotAnArchive(
            "The file is not a zip archive: it has no end record that fits.", hint=_REPAIR
        )
    # What ends before the chosen one's directory is an archive within a member; that is content.
    rivals = [
        each
        for each in candidates
        if each is not chosen and max(each.comment_end, each.position + 1) > chosen.directory
    ]
    if len(rivals) > _MAX_RIVALS or any(_is_whole(fd, each, limits) for each in rivals):
        raise _ambiguous()
    return chosen


def _readings(fd: int, size: int, position: int) -> Iterator[Ending]:
    """The ways in which an end record at ``position`` could be meant: usually one, or none."""
    fixed = read_some(fd, position, 22)
    if len(fixed) < 22:
        return
    _, disk, first_disk, here, count, length, offset, comment = r.END.unpack(fixed)
    comment_end = position + 22 + comment
    if comment_end > size:
        return
    wide = _zip64(fd, position)
    end, zip64 = position, None
    if wide is not None:
        zip64, disks, values = wide
        stated = (disk, first_disk, here, count, length, offset)
        marks = (r.M16, r.M16, r.M16, r.M16, r.M32, r.M32)
        for narrow, mark, true in zip(stated, marks, (*disks, *values), strict=True):
            if narrow not in (mark, true):
                raise AmbiguousArchive(
                    "The archive's two end records contradict each other.", hint=_REPAIR
                )
        end, (disk, first_disk) = zip64, disks
        here, count, length, offset = values
    if (disk, first_disk) != (0, 0) or here != count:
        if any(_begins(fd, at, r.CENTRAL_SIGNATURE) for at in (offset, end - length)):
            raise UnsupportedArchive(
                "The archive is one of several disks.", hint="Join the disks with zip -s 0 first."
            )
        return
    first = r.CENTRAL_SIGNATURE if count else r.SIGNATURE_SIGNATURE
    for directory in dict.fromkeys((end - length, offset)):
        if not max(offset, end - length - _LARGEST_GAP) <= directory <= end - length:
            continue
        if length < 46 * count:
            continue
        if not length or _begins(fd, directory, first):
            shift = directory - offset
            yield Ending(position, zip64, count, directory, length, shift, comment_end)


def _begins(fd: int, at: int, signature: bytes) -> bool:
    return at >= 0 and read_some(fd, at, 4) == signature


def _zip64(fd: int, position: int) -> tuple[int, tuple[int, int], tuple[int, int, int, int]] | None:
    """The ZIP64 end record in front of an end record, if a locator leads to one."""
    at = position - r.LOCATOR.size
    if at < r.END64.size:
        return None
    signature, _, stated, _ = r.LOCATOR.unpack(read_exactly(fd, at, r.LOCATOR.size))
    if signature != r.LOCATOR_SIGNATURE:
        return None
    found = []
    for record in dict.fromkeys((at - r.END64.size, stated)):
        if not 0 <= record <= at - r.END64.size:
            continue
        fields = r.END64.unpack(read_exactly(fd, record, r.END64.size))
        if fields[0] != r.END64_SIGNATURE or record + 12 + fields[1] != at:
            continue
        found.append((record, (fields[4], fields[5]), tuple(fields[6:10])))
    if len(found) > 1:
        raise _ambiguous()
    if not found:
        return _stretched(fd, at, stated)
    record, disks, values = found[0]
    return record, disks, (values[0], values[1], values[2], values[3])


def _stretched(
    fd: int, locator: int, stated: int
) -> tuple[int, tuple[int, int], tuple[int, int, int, int]] | None:
    """A ZIP64 record with an extensible part, behind a prefix the locator knows nothing of."""
    start = max(0, locator - (1 << 16))
    tail = read_exactly(fd, start, locator - start)
    at = len(tail)
    while (at := tail.rfind(r.END64_SIGNATURE, 0, at)) >= 0:
        record = start + at
        if at + r.END64.size <= len(tail) and record >= stated:
            fields = r.END64.unpack_from(tail, at)
            if record + 12 + fields[1] == locator:
                return record, (fields[4], fields[5]), (fields[6], fields[7], fields[8], fields[9])
        at += 3
    return None


def _is_whole(fd: int, ending: Ending, limits: Limits) -> bool:
    """Whether the stated number of records fills the stated directory."""
    if ending.directory_size > limits.directory_bytes:
        return True  # too large to look at: it counts as possible, and is refused later
    data = read_exactly(fd, ending.directory, ending.directory_size)
    try:
        return walk(data, true_count(data, ending)) is not None
    except DamagedArchive:
        return False


def true_count(directory: bytes, ending: Ending) -> int:
    """How many members there are: Finder and old programs write the count modulo 65,536."""
    if ending.zip64 is not None or len(directory) < 46 << 16:
        return ending.members
    at, count, end = 0, 0, len(directory)
    while at + 46 <= end and directory[at : at + 4] == r.CENTRAL_SIGNATURE:
        at += r.record_length(directory, at)
        count += 1
    return count if count & r.M16 == ending.members else ending.members


def check_count(members: int, limits: Limits) -> None:
    """Refuse more members than the limits allow."""
    if members > limits.members:
        raise LimitExceeded(
            f"The archive says it has {members:,} members; the limit is {limits.members:,}.",
            hint="Split the archive or raise the limit.",
        )


def walk(directory: bytes, count: int) -> int:
    """Where the last of ``count`` records ends; :class:`DamagedArchive` if they don't fit.

    A digital signature may follow the last record and nothing else.
    """
    at, end = 0, len(directory)
    for _ in range(count):
        if at + 46 > end or directory[at : at + 4] != r.CENTRAL_SIGNATURE:
            raise damaged_directory()
        at += r.record_length(directory, at)
    check_directory_end(directory, at)
    return at


def check_directory_end(directory: bytes, at: int) -> None:
    """Refuse a directory that goes on behind its last record, or ends within it."""
    rest = len(directory) - at
    if rest and (rest < 6 or directory[at : at + 4] != r.SIGNATURE_SIGNATURE):
        raise damaged_directory()
    if rest and int.from_bytes(directory[at + 4 : at + 6], "little") != rest - 6:
        raise damaged_directory()


def damaged_directory() -> DamagedArchive:
    """The refusal when directory, count and length don't agree."""
    return DamagedArchive(
        "The archive's directory doesn't match its own count and length.", hint=_REPAIR
    )


def _ambiguous() -> AmbiguousArchive:
    return AmbiguousArchive(
        "The archive has several end records; programs would disagree on what is in it.",
        hint=_REPAIR,
    )
