"""The members' half of a merge: new data goes in, everything around it is copied as it lies.

Between two replaced members lies one range of the original, which may hold anything: other members,
descriptors, padding, a prefix.  It is copied without being understood.  What comes out is told to
:mod:`socketpool.archive.central`, which corrects the directory.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive import ziprecords as r

if TYPE_CHECKING:
    from socketpool.archive.commit import Replacement
    from socketpool.archive.member import Local, Member
    from socketpool.archive.reader import Archive

_NARROW = Struct("<3L")
_WIDE = Struct("<L2Q")


class Splice(NamedTuple):
    """What was replaced and where everything went; columns are in the order of the file."""

    ordinals: array[int]
    """Of the original's replaced members."""
    incoming: array[int]
    """Ordinals of the returned members that replace them."""
    ends: array[int]
    """Where each replaced member ended in the original, descriptor included."""
    headers: array[int]
    """Where each new local header lies."""
    data: array[int]
    """Where each new data begins."""
    shifts: array[int]
    """How far everything behind each replaced member has moved."""


def splice(
    original: Archive,
    returned: Archive,
    ordinals: array[int],
    incoming: array[int],
    out: Replacement,
) -> Splice:
    """Write everything up to the central directory.

    ``ordinals`` are in the order of the file.  Checks each replaced member's local header on both
    sides, but not the content.
    """
    done = Splice(ordinals, incoming, array("Q"), array("Q"), array("Q"), array("q"))
    _, _, ends, headers, places, shifts = done
    source = 0
    for old_ordinal, new_ordinal in zip(ordinals, incoming, strict=True):
        old, new = original.member(old_ordinal), returned.member(new_ordinal)
        local = original.local(old)
        arriving = returned.place(new_ordinal)
        end = local.data + old.packed
        if (old.flags | int.from_bytes(local.fixed[6:8], "little")) & r.DESCRIPTOR:
            end += _descriptor_length(original, old, end)
        if old.offset > source:
            out.copy(original, source, old.offset - source)
        headers.append(out.position)
        out.write(_new_header(local, new))
        places.append(out.position)
        out.copy(returned, arriving, new.packed)
        source = end
        ends.append(end)
        shifts.append(out.position - end)
    out.copy(original, source, original.ending.directory - source)
    return done


def merged_flags(old: int, new: Member) -> int:
    """The old flags, as they must be for new data with its sizes in front."""
    return old & ~(r.DESCRIPTOR | r.DEFLATE_LEVEL) | new.flags & r.DEFLATE_LEVEL


def merged_version(old: int, new: Member, *, wide: bool) -> int:
    """The version needed to extract, in the low byte; the high byte stays."""
    least = 45 if wide else 20 if new.method == r.DEFLATED else 10
    return old & 0xFF00 | max(old & 0xFF, least)


def _new_header(local: Local, new: Member) -> bytes:
    """The old local header with the new method, checksum and sizes; ZIP64 where it was."""
    _, needed, flags, _, date, _, _, _, length, _ = r.LOCAL.unpack(local.fixed)
    extra = local.extra
    packed, size = new.packed, new.size
    wide = packed >= r.M32 or size >= r.M32
    if extra and r.find_field(extra, r.ZIP64_ID) is not None:
        wide = True
    if wide:
        extra = r.with_zip64(extra, size.to_bytes(8, "little") + packed.to_bytes(8, "little"))
        packed = size = r.M32
    fixed = r.LOCAL.pack(
        r.LOCAL_SIGNATURE,
        merged_version(needed, new, wide=wide),
        merged_flags(flags, new),
        *(new.method, date, new.crc, packed, size, length, len(extra)),
    )
    return b"%b%b%b" % (fixed, local.name, extra)


def _descriptor_length(archive: Archive, member: Member, at: int) -> int:
    """How long the data descriptor at ``at`` is: it exists in four forms, told by content.

    Some programs write none although its flag is set, or zeros into it.  What isn't recognised is
    left where it lies, as bytes between members that nobody reads.  When content leaves a choice,
    the form that fills the room up to the next member is meant.
    """
    room = archive.next_offset(member) - at
    found = archive.read(at, min(24, room))
    fitting = []
    for signature in (r.DESCRIPTOR_SIGNATURE, b""):
        for form in (_NARROW, _WIDE):
            length = len(signature) + form.size
            if length <= len(found) and found.startswith(signature):
                values = form.unpack_from(found, len(signature))
                true = (member.crc, member.packed, member.size)
                if values == true or (signature and values in ((0, *true[1:]), (0, 0, 0))):
                    fitting.append(length)
    if not fitting:
        return 0
    return room if room in fitting else fitting[0]
