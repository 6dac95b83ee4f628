"""The server's side: an archive that arrives is hostile until this module has said otherwise.

Only the canonical shape is accepted, since that is all a client of ours makes: members behind each
other without gaps, stored or deflated, with nothing but name, checksum and sizes.  Names are data:
nothing here makes a path of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.inflate import check_claims, check_total, chunks
from socketpool.archive.limits import SERVER_LIMITS, Limits
from socketpool.archive.names import is_unsafe, show
from socketpool.archive.reader import Archive
from socketpool.archive.refusals import (
    CommitFailed,
    ForbiddenShape,
    LimitExceeded,
    LyingMember,
    NoSpace,
)

if TYPE_CHECKING:
    import os
    from typing import BinaryIO

    from socketpool.archive.member import Member

_HINT = "Send what socketpool made, unchanged."


def open_incoming(path: str | os.PathLike[str], limits: Limits = SERVER_LIMITS) -> Archive:
    """Open an archive that arrived and check everything but its content.

    Content is checked by :func:`extract_member`, within what was promised here.
    """
    archive = Archive.open(path, limits)
    try:
        _check_shape(archive)
    except BaseException:
        archive.close()
        raise
    return archive


def extract_member(archive: Archive, member: Member, out: BinaryIO, limits: Limits) -> None:
    """Unpack one member to ``out``, never more than it promised; check size and checksum.

    When this raises, what was written must be thrown away.
    """
    check_claims(member, limits)
    place = archive.local(member).data
    for chunk in chunks(member, archive.read, place):
        try:
            out.write(chunk)
        except OSError as error:
            kind = NoSpace if error.errno in r.FULL else CommitFailed
            raise kind(
                f"There is no room to unpack {show(member.name)}.", hint="Ask the operator."
            ) from error


def _check_shape(archive: Archive) -> None:
    ending = archive.ending
    end = 22 if ending.zip64 is None else 98
    if ending.shift or ending.directory + ending.directory_size + end != archive.size:
        raise ForbiddenShape("The archive has a prefix, a comment or stray bytes.", hint=_HINT)
    if archive.duplicates():
        raise ForbiddenShape("The archive has two members of the same name.", hint=_HINT)
    at = total = 0
    for member in archive:
        _check_member(archive, member)
        check_claims(member, archive.limits)
        local = archive.local(member)
        if member.offset != at or len(local.extra) not in (0, 20):
            raise _forbidden(member, "doesn't follow the one before it")
        if local.fixed[14:18] != member.crc.to_bytes(4, "little"):
            raise _lying(member)
        at = local.data + member.packed
        total += member.size
        check_total(total, archive.limits)
    if at != ending.directory:
        raise ForbiddenShape("The archive has bytes between its members.", hint=_HINT)


def _check_member(archive: Archive, member: Member) -> None:
    name = member.name
    if member.flags & ~r.UTF8:
        raise _forbidden(member, "has flags that only foreign archives have")
    if is_unsafe(name) or name.endswith(b"/"):
        raise _forbidden(member, "has a name that no client sends")
    if len(name) > archive.limits.name_bytes:
        raise LimitExceeded(f"The name {show(name)} is too long.")
    start = archive.starts[member.ordinal]
    record = r.CentralFields._make(r.CENTRAL.unpack_from(archive.directory, start))
    if record.comment_length or record.external or record.internal or record.extra_length > 28:
        raise _forbidden(member, "has attributes, a comment or extra fields")


def _forbidden(member: Member, what: str) -> ForbiddenShape:
    return ForbiddenShape(f"The member {show(member.name)} {what}.", hint=_HINT)


def _lying(member: Member) -> LyingMember:
    return LyingMember(f"The member {show(member.name)} has two checksums.", hint=_HINT)
