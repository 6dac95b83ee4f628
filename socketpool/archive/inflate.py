"""Unpacking one member with every bound known in advance.

No more is ever unpacked than the directory said, so a lie costs at most one chunk.  Content is
yielded while it is being checked: whoever uses it before the end must be able to throw it away.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.names import show
from socketpool.archive.refusals import (
    CompressionBomb,
    LimitExceeded,
    LyingMember,
    UnsupportedArchive,
)

if TYPE_CHECKING:
    from socketpool.archive.limits import Limits
    from socketpool.archive.member import Member

Read = Callable[[int, int], bytes]
"""Exactly so many bytes from an offset."""

_CHUNK = 1 << 18


def check_claims(member: Member, limits: Limits) -> None:
    """Refuse what a member from the other side says about itself, before it is touched."""
    name, size, packed = member.name, member.size, member.packed
    if member.method not in (r.STORED, r.DEFLATED) or member.flags & (r.ENCRYPTED | r.PATCHED):
        raise UnsupportedArchive(
            f"The member {show(name)} is encrypted or packed in a way that can't be checked.",
            hint="Only stored and deflated members can be exchanged.",
        )
    if member.method == r.STORED and size != packed:
        raise _wrong(name)
    if size > limits.member_bytes:
        raise LimitExceeded(
            f"The member {show(name)} has {size:,} bytes; the limit is {limits.member_bytes:,}.",
            hint="Raise the limit if this is intended.",
        )
    if size > limits.ratio_floor and size > packed * limits.ratio:
        raise CompressionBomb(
            f"The member {show(name)} would grow from {packed:,} to {size:,} bytes.",
            hint="Raise the limit on the ratio if this is intended.",
        )


def check_total(total: int, limits: Limits) -> None:
    """Refuse an archive whose members together are too large."""
    if total > limits.total_bytes:
        raise LimitExceeded(
            f"The members together have {total:,} bytes; the limit is {limits.total_bytes:,}.",
            hint="Raise the limit if this is intended.",
        )


def verify(member: Member, read: Read, data: int) -> None:
    """Unpack the member whose data begins at ``data`` and refuse any lie in size or checksum."""
    if member.packed <= _CHUNK and member.size <= _CHUNK:
        content = _unpack_small(member, read(data, member.packed))
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            raise _wrong(member.name)
        return
    for _ in chunks(member, read, data):
        pass


def chunks(member: Member, read: Read, data: int) -> Iterator[bytes]:
    """The member's content piece by piece; raises at the end if it was not what was promised."""
    crc = total = 0
    for piece in _pieces(member, read, data):
        total += len(piece)
        if total > member.size:
            raise _wrong(member.name)
        crc = zlib.crc32(piece, crc)
        yield piece
    if total != member.size or crc != member.crc:
        raise _wrong(member.name)


def _unpack_small(member: Member, packed: bytes) -> bytes:
    if member.method == r.STORED:
        return packed
    inflater = zlib.decompressobj(-15)
    try:
        # One byte more than promised shows a lie; zero would mean no limit.
        content = inflater.decompress(packed, member.size + 1)
    except zlib.error:
        raise _wrong(member.name) from None
    if not inflater.eof or inflater.unused_data:
        raise _wrong(member.name)
    return content


def _pieces(member: Member, read: Read, data: int) -> Iterator[bytes]:
    end = data + member.packed
    if member.method == r.STORED:
        for at in range(data, end, _CHUNK):
            yield read(at, min(_CHUNK, end - at))
        return
    inflater = zlib.decompressobj(-15)
    at = data
    try:
        while at < end and not inflater.eof:
            packed = read(at, min(_CHUNK, end - at))
            at += len(packed)
            while packed and not inflater.eof:
                yield inflater.decompress(packed, _CHUNK)
                packed = inflater.unconsumed_tail
        while not inflater.eof:
            # zlib may still hold output when the input is used up.
            piece = inflater.decompress(b"", _CHUNK)
            if not piece:
                break
            yield piece
    except zlib.error:
        raise _wrong(member.name) from None
    if not inflater.eof or inflater.unused_data or at != end:
        raise _wrong(member.name)


def _wrong(name: bytes) -> LyingMember:
    return LyingMember(
        f"The content of {show(name)} doesn't have the size and checksum it claims.",
        hint="Nothing was changed. Ask for the member again.",
    )
