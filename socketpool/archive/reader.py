"""Reading a zip strictly and compactly: the central directory, and local headers on demand.

An :class:`Archive` keeps the directory's bytes and three numbers a member, whatever the archive's
size; a :class:`Member` is decoded when it is asked for.  Opening checks what concerns the archive
as a whole: one end record, a directory that fits, no overlaps.  What concerns one member (its local
header, its data) is checked when that member is to be sent or replaced.
"""

from __future__ import annotations

import os
import stat
import zlib
from array import array
from bisect import bisect_right
from itertools import islice
from operator import le
from pathlib import Path
from struct import Struct, unpack_from
from typing import TYPE_CHECKING, Self

from socketpool.archive import ziprecords as r
from socketpool.archive.closing import Closes
from socketpool.archive.containers import recognise, recognise_prefix
from socketpool.archive.ending import (
    check_count,
    check_directory_end,
    damaged_directory,
    find_ending,
    true_count,
)
from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.member import Local, Member, agrees
from socketpool.archive.names import same_name, show
from socketpool.archive.refusals import (
    DamagedArchive,
    LimitExceeded,
    LyingMember,
    NameMismatch,
    NotAnArchive,
    OverlappingMembers,
    SourceUnreadable,
    UnsupportedArchive,
)
from socketpool.archive.window import Window, read_exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACES = Struct("<4s16x2L4H6xL")
_BRIEF = Struct("<8x2H4x3LH")
_SIZES = Struct("<2LH")
_new_member = tuple.__new__
_REPAIR = "Build the archive again with a current zip program."


class Archive(Closes):
    """A zip opened for reading.  Raises :class:`~socketpool.errors.ArchiveError` subclasses only.

    Use as a context manager; the file stays open, and the archive refers to what it was when
    opened even if the path is replaced meanwhile.
    """

    __slots__ = (
        "_in_order",
        "_sorted",
        "_window",
        "directory",
        "ending",
        "fd",
        "limits",
        "offsets",
        "size",
        "starts",
        "stat",
    )

    def __init__(self, fd: int, limits: Limits = DEFAULT_LIMITS) -> None:
        """Read the directory of the open file ``fd``, which then belongs to the archive."""
        self.fd = fd
        self.limits = limits
        try:
            self.stat = os.fstat(fd)
            self.size = self.stat.st_size
            _check_regular(self.stat)
            _check_kind(recognise(fd, self.size))
            self.ending = find_ending(fd, self.size, limits)
            self._window = Window(fd)
            self.directory = read_exactly(fd, self.ending.directory, self.ending.directory_size)
            members = true_count(self.directory, self.ending)
            check_count(members, limits)
            self.ending = self.ending._replace(members=members)
            self.starts = array("Q")
            self.offsets = array("Q")
            self._sorted: array[int] | None = None
            self._check_extents(self._parse())
            _check_kind(recognise_prefix(fd, min(self.offsets, default=0)))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Self:
        """Open the zip at ``path``; a symlink is followed."""
        try:
            # Without O_NONBLOCK a named pipe would wait for a writer before it can be refused.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceUnreadable(
                f"The archive {Path(path).name!r} can't be opened: {error.strerror}.",
                hint="Check the path and its permissions.",
            ) from error
        return cls(fd, limits)

    def close(self) -> None:
        """Close the file; the directory stays readable."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Member]:
        """The members in the order of the directory."""
        return map(self.member, range(len(self.starts)))

    def member(self, index: int) -> Member:
        """The member at ``index`` in the directory."""
        directory, at = self.directory, self.starts[index]
        (_, made, _, flags, method, _, crc, packed, size, name_length, *_, external, _) = (
            r.CENTRAL.unpack_from(directory, at)
        )
        at += 46
        name = directory[at : at + name_length]
        if r.M32 in (packed, size):
            packed, size = self._wide(index)[:2]
        offset = self.offsets[index]
        # What NamedTuple's own constructor does, at half the cost: this is called for each member.
        return _new_member(
            Member, (index, name, flags, method, crc, packed, size, made, external, offset)
        )

    def brief(self, index: int) -> tuple[bytes, int, int, int, int, int]:
        """Name, flags, method, CRC, packed size and size: what a canonical archive tells."""
        directory, at = self.directory, self.starts[index]
        flags, method, crc, packed, size, length = _BRIEF.unpack_from(directory, at)
        if r.M32 in (packed, size):
            packed, size = self._wide(index)[:2]
        return directory[at + 46 : at + 46 + length], flags, method, crc, packed, size

    def name(self, index: int) -> bytes:
        """The raw name of the member at ``index``."""
        at = self.starts[index]
        length = self.directory[at + 28] | self.directory[at + 29] << 8
        return self.directory[at + 46 : at + 46 + length]

    def forget_directory(self) -> None:
        """Free the directory's bytes; only :meth:`read` and the columns remain of use."""
        self.directory = b""

    def checksum(self) -> int:
        """Of the central directory: changes with any member's name, content or attributes."""
        return zlib.crc32(self.directory)

    def duplicates(self) -> set[int]:
        """Indices of members that share their name with another one."""
        hashes = array("q", map(hash, map(self.name, range(len(self)))))
        ordered = sorted(hashes)
        twice = {a for a, b in zip(ordered, islice(ordered, 1, None), strict=False) if a == b}
        if not twice:
            return set()
        seen: dict[bytes, list[int]] = {}
        for index, value in enumerate(hashes):
            if value in twice:
                seen.setdefault(self.name(index), []).append(index)
        return {index for indices in seen.values() if len(indices) > 1 for index in indices}

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the file at ``offset``; reads ahead when used in order."""
        return self._window.read(offset, length)

    def local(self, member: Member) -> Local:
        """The member's local header, if it tells the same as the directory; else a refusal."""
        name, offset = member.name, member.offset
        length = 30 + len(name)
        head = self._window.read(offset, length)
        fields = r.LOCAL.unpack_from(head)
        signature, _, flags, method, _, crc, packed, size, name_length, extra_length = fields
        if signature != r.LOCAL_SIGNATURE:
            raise DamagedArchive(f"The data of {show(name)} is not where the directory says.")
        if name_length != len(name) or not same_name(head[30:], name):
            raise NameMismatch(
                f"The member {show(name)} has another name beside its data.", hint=_REPAIR
            )
        if method != member.method or (flags ^ member.flags) & r.ENCRYPTED:
            raise _lying(name)
        extra = self._window.read(offset + length, extra_length) if extra_length else b""
        stated = (member.crc, member.packed, member.size)
        if (crc, packed, size) != stated and not agrees(fields, extra, member):
            raise _lying(name)
        data = offset + length + extra_length
        if data + member.packed > self.next_offset(member):
            raise OverlappingMembers(
                f"The data of {show(name)} runs into the next member.", hint=_REPAIR
            )
        return Local(head[:30], extra, head[30:], data)

    def place(self, ordinal: int) -> int:
        """Where a member's data begins, with the checks of :meth:`local`.

        Most local headers are the same bytes as in the directory, which is quick to see.
        """
        directory, at, offset = self.directory, self.starts[ordinal], self.offsets[ordinal]
        packed, size, length = _SIZES.unpack_from(directory, at + 20)
        head = self._window.read(offset, 30 + length)
        if (
            head[6:28] == directory[at + 8 : at + 30]
            and head[30:] == directory[at + 46 : at + 46 + length]
            and head[:4] == r.LOCAL_SIGNATURE
            and r.M32 not in (packed, size)
        ):
            data: int = offset + 30 + length + (head[28] | head[29] << 8)
            following = ordinal + 1
            if (
                self._in_order
                and following < len(self.offsets)
                and data + packed <= self.offsets[following]
            ):
                return data
        return self.local(self.member(ordinal)).data

    def next_offset(self, member: Member) -> int:
        """Where the next thing behind the member begins: another member or the directory."""
        offsets = self.offsets
        if self._in_order:
            following = member.ordinal + 1
        else:
            if self._sorted is None:
                self._sorted = array("Q", sorted(offsets))
            offsets = self._sorted
            following = bisect_right(offsets, member.offset)
        return offsets[following] if following < len(offsets) else self.ending.directory

    def in_file_order(self, indices: array[int]) -> array[int]:
        """The indices sorted by where their members lie in the file."""
        if self._in_order:
            return array("I", sorted(indices))
        return array("I", sorted(indices, key=self.offsets.__getitem__))

    def _parse(self) -> array[int]:
        """Fill in starts and offsets; the least end of each member, as the directory tells it."""
        directory, count, shift = self.directory, self.ending.members, self.ending.shift
        last = len(directory) - 46
        longest = self.limits.name_bytes
        starts, offsets, ends = self.starts, self.offsets, array("Q")
        add_start, add_offset, add_end = starts.append, offsets.append, ends.append
        unpack = _PLACES.unpack_from
        at = 0
        for index in range(count):
            if at > last:
                raise damaged_directory()
            signature, packed, size, names, extras, comments, disk, offset = unpack(directory, at)
            if signature != r.CENTRAL_SIGNATURE:
                raise damaged_directory()
            add_start(at)
            if disk or r.M32 in (packed, size, offset):
                packed, size, offset = self._wide(index)
            if names > longest:
                raise LimitExceeded(
                    f"A member's name has {names:,} bytes; the limit is {longest:,}.",
                    hint="Shorten the name or raise the limit.",
                )
            offset += shift
            if offset > self.size:
                raise DamagedArchive(
                    f"The member {show(self.name(index))} lies behind the end of the file."
                )
            if packed > self.size:
                raise self._too_long(index)
            add_offset(offset)
            add_end(offset + 30 + names + packed)
            at += 46 + names + extras + comments
        if at > len(directory):
            raise damaged_directory()
        check_directory_end(directory, at)
        return ends

    def _wide(self, index: int) -> tuple[int, int, int]:
        """Packed size, size and stored offset of a record that has ZIP64 values."""
        at = self.starts[index]
        fields = r.CentralFields._make(r.CENTRAL.unpack_from(self.directory, at))
        at += 46 + fields.name_length
        extra = self.directory[at : at + fields.extra_length]
        found = r.find_field(extra, r.ZIP64_ID)
        start, end = found or (0, 0)
        values = [fields.size, fields.packed, fields.offset]
        for place, value in enumerate(values):
            if value == r.M32:
                if start + 8 > end:
                    name = self.name(index)
                    raise DamagedArchive(
                        f"The member {show(name)} lacks the ZIP64 values it refers to.",
                        hint=_REPAIR,
                    )
                (values[place],) = unpack_from("<Q", extra, start)
                start += 8
        disk = fields.disk
        if disk == r.M16 and start + 4 <= end:
            (disk,) = unpack_from("<L", extra, start)
        if disk:
            raise UnsupportedArchive(
                f"The member {show(self.name(index))} lies on another disk.",
                hint="Join the disks with zip -s 0 first.",
            )
        return values[1], values[0], values[2]

    def _check_extents(self, ends: array[int]) -> None:
        """Refuse members that share bytes with each other or with the directory."""
        offsets = self.offsets
        self._in_order = all(map(le, ends, islice(offsets, 1, None)))
        if not self._in_order:
            order = sorted(range(len(offsets)), key=offsets.__getitem__)
            for before, after in zip(order, islice(order, 1, None), strict=False):
                if ends[before] > offsets[after]:
                    raise OverlappingMembers(
                        f"The members {show(self.name(before))} and {show(self.name(after))} share"
                        " the same bytes.",
                        hint=_REPAIR,
                    )
        if ends and max(ends) > self.ending.directory:
            raise self._too_long(ends.index(max(ends)))

    def _too_long(self, index: int) -> OverlappingMembers:
        return OverlappingMembers(
            f"The member {show(self.name(index))} runs into the directory.", hint=_REPAIR
        )


def _check_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAnArchive("The archive is not a regular file.")


def _check_kind(found: str) -> None:
    """Refuse what is a container of another kind; ``found`` names it, or is empty."""
    if found:
        raise NotAnArchive(
            f"not a zip, it is {found}",
            hint="the file was not touched; extract it and make a zip of what is in it",
        )


def _lying(name: bytes) -> LyingMember:
    return LyingMember(
        f"The member {show(name)} is described in two different ways within the archive.",
        hint=_REPAIR,
    )
