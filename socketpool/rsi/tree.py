"""Members of an uploaded archive as a directory tree, for programs that expect files by name.

Names come from the client.  Each was judged when the archive arrived (nothing absolute, no ``..``,
no control characters), and the tree is built below an open directory without following any link,
so that no name can lead out of it.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive.extract import extract_member, open_incoming
from socketpool.archive.names import show
from socketpool.archive.refusals import ForbiddenShape
from socketpool.archive.writer import Entry, write_archive
from socketpool.archive.ziprecords import UTF8
from socketpool.errors import ServiceFailed
from socketpool.rsi.members import server_limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH_BYTES = 4095
"""The longest path that a program may open (PATH_MAX, less its terminator)."""

_CHUNK = 256 << 10
_NO_FILE = -1
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Planted(NamedTuple):
    """A member as it was put into the tree."""

    utf8: bool
    size: int
    crc: int


class Differences(NamedTuple):
    """What a program did to the tree."""

    changed: list[bytes]
    added: list[bytes]
    deleted: list[bytes]


def plant(archive: Path, root: Path, max_bytes: int) -> dict[bytes, Planted]:
    """Unpack the archive below ``root``, which must not exist; returns its members by name.

    Raises :class:`~socketpool.errors.ArchiveError`.
    """
    root.mkdir(mode=0o700)
    longest = PATH_BYTES - len(os.fsencode(root)) - len("/")
    planted: dict[bytes, Planted] = {}
    limits = server_limits(max_bytes)
    top = os.open(root, _FOLDER)
    try:
        with open_incoming(archive, limits) as incoming:
            for member in incoming:
                if len(member.name) > longest:
                    raise _impossible(member.name)
                with os.fdopen(_create(top, member.name), "wb") as out:
                    extract_member(incoming, member, out, limits)
                planted[member.name] = Planted(bool(member.flags & UTF8), member.size, member.crc)
    finally:
        os.close(top)
    return planted


def compare(root: Path, planted: dict[bytes, Planted]) -> Differences:
    """What is different now.  A member that is no longer a plain file counts as deleted."""
    changed, added = [], []
    found = set()
    top = os.fsencode(root) + b"/"
    for name, size in _files(top):
        before = planted.get(name)
        if before is None:
            added.append(name)
            continue
        if size == _NO_FILE:
            continue
        found.add(name)
        if size != before.size or _crc(top + name) != before.crc:
            changed.append(name)
    deleted = [name for name in planted if name not in found]
    return Differences(sorted(changed), sorted(added), deleted)


def overlay(archive: Path, root: Path, max_bytes: int) -> None:
    """Put the members of a later archive over the files that were planted under their names."""
    limits = server_limits(max_bytes)
    with open_incoming(archive, limits) as later:
        for member in later:
            with (root / os.fsdecode(member.name)).open("wb") as out:
                extract_member(later, member, out, limits)


def pack(root: Path, names: list[bytes], planted: dict[bytes, Planted], target: Path) -> None:
    """Write the named members to a new archive."""
    write_archive(
        target, (Entry(name, planted[name].utf8, root / os.fsdecode(name)) for name in names)
    )


def _create(top: int, name: bytes) -> int:
    """A new file below ``top``, with the folders on the way; raises ForbiddenShape."""
    *folders, last = name.split(b"/")
    fd = os.dup(top)
    try:
        for folder in folders:
            if folder in (b"", b"."):
                raise _impossible(name)
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700, dir_fd=fd)
            below = os.open(folder, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(last, flags, 0o600, dir_fd=fd)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _impossible(name) from None
    except OSError as error:
        raise ServiceFailed(
            f"the member {show(name)} can't be unpacked: {error.strerror}"
        ) from error
    finally:
        os.close(fd)


def _impossible(name: bytes) -> ForbiddenShape:
    return ForbiddenShape(
        f"The member {show(name)} can't be a file beside the others.",
        hint="Keep it at home with a rule of your policy.",
    )


def _files(top: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and size of everything below ``top`` that is no folder; links are not followed."""
    pending = [b""]
    while pending:
        above = pending.pop()
        with os.scandir(top + above) as entries:
            for entry in entries:
                name = above + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name + b"/")
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False).st_size
                else:
                    yield name, _NO_FILE


def _crc(path: bytes) -> int:
    crc = 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc
