"""The directory's half of a merge: the records of before, with what has moved or changed corrected.

A record is patched where it stands when its values fit; it is made anew only when a value needs
ZIP64.  Either way name, attributes, times, comment and every other extra field stay.
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct
from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.splice import merged_flags, merged_version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.archive.member import Member
    from socketpool.archive.reader import Archive
    from socketpool.archive.splice import Splice

_NEEDED_FLAGS_METHOD = Struct("<3H")
_CRC_PACKED_SIZE = Struct("<3L")
_OFFSET = Struct("<L")
_U64 = (1 << 64) - 1
_BLOCK = 4096


def central_directory(
    original: Archive, returned: Archive, splice: Splice
) -> Iterator[bytes | bytearray]:
    """The new central directory in pieces."""
    total = len(original)
    for first in range(0, total, _BLOCK):
        yield from _records(original, returned, splice, range(first, min(first + _BLOCK, total)))
    last = original.starts[-1] if total else 0
    end = last + r.record_length(original.directory, last) if total else 0
    yield original.directory[end:]


def _records(
    original: Archive, returned: Archive, splice: Splice, block: range
) -> Iterator[bytes | bytearray]:
    """The records of one block, patched; those that change length interrupt the block."""
    starts, offsets, shift = original.starts, original.offsets, original.ending.shift
    base = starts[block.start]
    stop = starts[block.stop] if block.stop < len(starts) else len(original.directory)
    if block.stop >= len(starts):
        last = starts[-1]
        stop = last + r.record_length(original.directory, last)
    ordinals = splice.ordinals
    patched = bytearray(original.directory[base:stop])
    written = 0
    moves = _Moves(splice)
    for ordinal in block:
        offset = offsets[ordinal]
        at = starts[ordinal] - base
        row = moves.row(offset)
        new: Member | None = None
        if row + 1 < len(ordinals) and ordinals[row + 1] == ordinal:
            new = returned.member(splice.incoming[row + 1])
            stored = splice.headers[row + 1] - shift
        elif row < 0 or not splice.shifts[row]:
            continue
        else:
            stored = offset + splice.shifts[row] - shift
        if not _patch(patched, at, stored, new):
            length = r.record_length(patched, at)
            yield patched[written:at]
            yield _rebuilt(original, ordinal, stored, new)
            written = at + length
    yield patched[written:]


class _Moves:
    """Finds rows of a splice: for ascending offsets without searching, for any other with."""

    __slots__ = ("_at", "_ends")

    def __init__(self, splice: Splice) -> None:
        self._ends = splice.ends
        self._at = -1

    def row(self, offset: int) -> int:
        """The last replaced member that ended at or before ``offset``, or -1."""
        ends, row = self._ends, self._at
        behind = row < 0 or ends[row] <= offset
        if not behind or (row + 1 < len(ends) and ends[row + 1] <= offset):
            row += 1
            if not behind or (row + 1 < len(ends) and ends[row + 1] <= offset):
                row = bisect_right(ends, offset) - 1
            self._at = row
        return row


def _patch(block: bytearray, at: int, stored: int, new: Member | None) -> bool:
    """Correct a record in place; False when ZIP64 is or gets involved."""
    if stored >= r.M32 or _OFFSET.unpack_from(block, at + 42)[0] == r.M32:
        return False
    if new is not None:
        _, packed, size = _CRC_PACKED_SIZE.unpack_from(block, at + 16)
        if new.packed >= r.M32 or new.size >= r.M32 or r.M32 in (packed, size):
            return False
        if _has_zip64_field(block, at):
            return False
        needed, flags, _ = _NEEDED_FLAGS_METHOD.unpack_from(block, at + 6)
        _NEEDED_FLAGS_METHOD.pack_into(
            block,
            at + 6,
            merged_version(needed, new, wide=False),
            merged_flags(flags, new),
            new.method,
        )
        _CRC_PACKED_SIZE.pack_into(block, at + 16, new.crc, new.packed, new.size)
    _OFFSET.pack_into(block, at + 42, stored)
    return True


def _has_zip64_field(block: bytearray, at: int) -> bool:
    name, extra = r.FIELD.unpack_from(block, at + 28)
    at += 46 + name
    return extra != 0 and r.find_field(block[at : at + extra], r.ZIP64_ID) is not None


def _rebuilt(original: Archive, ordinal: int, stored: int, new: Member | None) -> bytes:
    """A record made anew, with a ZIP64 field for what had one before or needs one now."""
    old = original.member(ordinal)
    at = original.starts[ordinal]
    record = bytes(original.directory[at : at + r.record_length(original.directory, at)])
    fields = r.CentralFields._make(r.CENTRAL.unpack_from(record))
    extra_at = 46 + fields.name_length
    comment_at = extra_at + fields.extra_length
    extra = record[extra_at:comment_at]
    source = new or old
    values = (source.size, source.packed, stored)
    before = [each == r.M32 for each in (fields.size, fields.packed, fields.offset)]
    after = [had or value >= r.M32 for had, value in zip(before, values, strict=True)]
    found = r.find_field(extra, r.ZIP64_ID)
    body = extra[found[0] : found[1]] if found else b""
    if any(after):
        rest = body[8 * sum(before) :]
        body = b"".join(
            value.to_bytes(8, "little") for value, wide in zip(values, after, strict=True) if wide
        )
        extra = r.with_zip64(extra, body + rest)
    elif found:
        # Some tools write the field without referring to it; it must not tell old values.
        fresh = b"".join(value.to_bytes(8, "little") for value in values)
        fresh = fresh[: len(body) // 8 * 8]
        extra = r.with_zip64(extra, fresh + body[len(fresh) :])
    size, packed, offset = (
        r.M32 if wide else value for value, wide in zip(values, after, strict=True)
    )
    fields = fields._replace(size=size, packed=packed, offset=offset, extra_length=len(extra))
    if new is not None:
        fields = fields._replace(
            crc=new.crc,
            method=new.method,
            flags=merged_flags(fields.flags, new),
            needed=merged_version(fields.needed, new, wide=any(after)),
        )
    elif any(after):
        fields = fields._replace(needed=fields.needed & 0xFF00 | max(fields.needed & 0xFF, 45))
    return r.CENTRAL.pack(*fields) + record[46:extra_at] + extra + record[comment_at:]


def new_ending(original: Archive, directory: int, directory_size: int) -> bytes:
    """Everything behind the new directory: gap, end records, comment, stray bytes.

    The end records say where the new directory is, in the form they had before.
    """
    ending = original.ending
    before_end = ending.directory + ending.directory_size
    tail = bytearray(original.read(before_end, original.size - before_end))
    moved = directory + directory_size - before_end
    stored = directory - ending.shift
    at = ending.position - before_end
    fields = list(r.END.unpack_from(tail, at))
    wide = directory_size >= r.M32 or stored >= r.M32
    for place, value in ((5, directory_size), (6, stored)):
        was = fields[place] == r.M32 and ending.zip64 is not None
        fields[place] = r.M32 if was or value >= r.M32 else value
    r.END.pack_into(tail, at, *fields)
    if ending.zip64 is not None:
        place = ending.zip64 - before_end
        record = list(r.END64.unpack_from(tail, place))
        record[8:10] = directory_size, stored
        r.END64.pack_into(tail, place, *record)
        place = at - r.LOCATOR.size
        locator = list(r.LOCATOR.unpack_from(tail, place))
        locator[2] = (locator[2] + moved) & _U64
        r.LOCATOR.pack_into(tail, place, *locator)
    elif wide:
        position = ending.position + moved - ending.shift
        tail[at:at] = r.zip64_end(len(original), directory_size, stored, position)
    return bytes(tail)
