"""Members of an uploaded archive as files of the workspace, and back into an archive."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from socketpool.archive.extract import extract_member, open_incoming
from socketpool.archive.limits import SERVER_LIMITS, Limits
from socketpool.archive.names import show, text
from socketpool.archive.refusals import ForbiddenShape
from socketpool.archive.writer import Entry, write_archive
from socketpool.archive.ziprecords import UTF8

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A member on disk, and what it was like when it arrived."""

    path: Path
    raw_name: bytes
    utf8: bool
    size: int
    crc: int


def check(archive: Path, max_bytes: int) -> int:
    """Judge an archive that just arrived; returns its number of members.

    Raises :class:`~socketpool.errors.ArchiveError`.
    """
    with open_incoming(archive, server_limits(max_bytes)) as incoming:
        return len(incoming)


def unpack(archive: Path, folder: Path, max_bytes: int) -> dict[str, Unpacked]:
    """Each member as a file of ``folder``, by its name as text.

    Raises :class:`~socketpool.errors.ArchiveError`.
    """
    folder.mkdir(mode=0o700)
    unpacked: dict[str, Unpacked] = {}
    limits = server_limits(max_bytes)
    with open_incoming(archive, limits) as incoming:
        for member in incoming:
            name = text(member.name)
            if name in unpacked:
                raise ForbiddenShape(f"The archive has two members that read {show(member.name)}.")
            path = folder / f"{member.ordinal:06d}{_suffix(name)}"
            with path.open("xb") as out:
                extract_member(incoming, member, out, limits)
            utf8 = bool(member.flags & UTF8)
            unpacked[name] = Unpacked(path, member.name, utf8, member.size, member.crc)
    return unpacked


def overlay(archive: Path, unpacked: Mapping[str, Unpacked], max_bytes: int) -> None:
    """Put the members of a later archive over the files of those of the same name."""
    limits = server_limits(max_bytes)
    with open_incoming(archive, limits) as later:
        for member in later:
            with unpacked[text(member.name)].path.open("wb") as out:
                extract_member(later, member, out, limits)


def pack_changed(unpacked: Mapping[str, Unpacked], target: Path) -> int:
    """Write the members that differ from the upload to a new archive; returns their number."""
    changed = [
        Entry(member.raw_name, member.utf8, member.path)
        for member in unpacked.values()
        if member.path.is_file() and not member.path.is_symlink() and not _is_unchanged(member)
    ]
    write_archive(target, changed)
    return len(changed)


def server_limits(max_bytes: int) -> Limits:
    """What an archive may hold that a service takes in."""
    return SERVER_LIMITS._replace(
        total_bytes=max_bytes, member_bytes=min(max_bytes, SERVER_LIMITS.member_bytes)
    )


def _is_unchanged(member: Unpacked) -> bool:
    if member.path.stat().st_size != member.size:
        return False
    crc = 0
    with member.path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 12 else ""
