"""What the directory and a local header say about one member, and when the two agree."""

from __future__ import annotations

import stat
from struct import unpack_from
from typing import NamedTuple

from socketpool.archive import ziprecords as r


class Member(NamedTuple):
    """One record of the central directory, with ZIP64 values resolved."""

    ordinal: int
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    made: int
    external: int
    offset: int
    """Of the local header, from the beginning of the file."""

    @property
    def is_directory(self) -> bool:
        """Whether this entry stands for a folder."""
        return self.name.endswith(b"/") or stat.S_ISDIR(self.external >> 16)

    @property
    def is_symlink(self) -> bool:
        """Whether this entry's content is the target of a link."""
        return stat.S_ISLNK(self.external >> 16)

    @property
    def is_special(self) -> bool:
        """Whether the attributes say something else than a file, folder or link."""
        kind = stat.S_IFMT(self.external >> 16)
        return kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)

    @property
    def is_encrypted(self) -> bool:
        """Whether any form of encryption is flagged."""
        return self.flags & r.ENCRYPTED != 0


class Local(NamedTuple):
    """A local header that was found true to the directory."""

    fixed: bytes
    extra: bytes
    name: bytes
    """As it is written there; its separators may be other ones than in the directory."""
    data: int
    """Where the member's data begins."""


def agrees(fields: tuple[int, ...], extra: bytes, member: Member) -> bool:
    """Whether a local header with other sizes or checksum than the directory is still true.

    With a descriptor they may be zero here; with ZIP64 the sizes are in the extra field.
    """
    crc, packed, size = fields[5], fields[6], fields[7]
    # Some programs set the flag in one of the two headers alone.
    later = (member.flags | fields[2]) & r.DESCRIPTOR != 0
    if crc != member.crc and not (later and crc == 0):
        return False
    if r.M32 in (packed, size):
        found = r.find_field(extra, r.ZIP64_ID)
        if found is not None:
            at, end = found
            wide = [unpack_from("<Q", extra, each)[0] for each in range(at, end - 7, 8)]
            if size == r.M32 and wide:
                size = wide.pop(0)
            if packed == r.M32 and wide:
                packed = wide.pop(0)
        elif later:
            return packed in (0, r.M32, member.packed) and size in (0, r.M32, member.size)
    if later:
        return packed in (0, member.packed) and size in (0, member.size)
    return packed == member.packed and size == member.size
