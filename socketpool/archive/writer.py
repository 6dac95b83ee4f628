"""Writing a canonical archive from files: what a server sends back, and a directory's implode.

Names go in as raw bytes and come out the same.  Data is deflated, or stored where that is smaller;
no descriptor is needed because the header is filled in once the sizes are known.
"""

from __future__ import annotations

import os
import stat
import zlib
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive import ziprecords as r
from socketpool.archive.canonical import Canonical
from socketpool.archive.names import show
from socketpool.archive.refusals import CommitFailed, NoSpace, SourceUnreadable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CHUNK = 1 << 18
_LEVEL = 6


class Entry(NamedTuple):
    """A file to be put into an archive."""

    name: bytes
    utf8: bool
    source: Path


class Written(NamedTuple):
    """What became of it."""

    crc: int
    size: int
    packed: int


class CanonicalWriter:
    """Writes members to an open, empty, seekable file; :meth:`finish` completes the archive."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._layout = Canonical()

    def add(self, name: bytes, *, utf8: bool, source: int) -> Written:
        """Append the content of the open file ``source``, from its beginning.

        Raises :class:`SourceUnreadable` for what isn't a regular file or changes while it is read.
        """
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            raise SourceUnreadable(f"{show(name)} is not a regular file.")
        start = self._layout.position
        data = start + 30 + len(name) + (20 if found.st_size >= r.M32 else 0)
        method = r.DEFLATED
        crc, size, packed = self._copy(source, data, zlib.compressobj(_LEVEL, zlib.DEFLATED, -15))
        if packed >= size:
            method = r.STORED
            crc, size, packed = self._copy(source, data, None)
        if size != found.st_size:
            raise SourceUnreadable(f"{show(name)} changed while it was being read.")
        header = self._layout.add(name, utf8=utf8, method=method, crc=crc, packed=packed, size=size)
        self._write(header, start)
        return Written(crc, size, packed)

    def finish(self) -> int:
        """Write the directory; the archive's length."""
        start = self._layout.position
        end = self._layout.end()
        self._write(end, start)
        try:
            # What was deflated and then stored may have left more behind than it needs.
            os.ftruncate(self._fd, start + len(end))
        except OSError as error:
            raise _failed(error) from error
        return start + len(end)

    def _copy(self, source: int, at: int, deflater: zlib._Compress | None) -> Written:
        """Pack ``source`` to offset ``at``."""
        crc = size = 0
        start = at
        while chunk := _read(source, size):
            crc = zlib.crc32(chunk, crc)
            size += len(chunk)
            at += self._write(chunk if deflater is None else deflater.compress(chunk), at)
        if deflater is not None:
            at += self._write(deflater.flush(), at)
        return Written(crc, size, at - start)

    def _write(self, data: bytes, at: int) -> int:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._fd, data[done:] if done else data, at + done)
        except OSError as error:
            raise _failed(error) from error
        return len(data)


def write_archive(target: Path, entries: Iterable[Entry]) -> int:
    """Write a canonical archive to ``target``, which must not exist; its length.

    Symlinks are not followed.  On failure nothing is left behind.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(target, flags, 0o600)
    except OSError as error:
        raise _failed(error) from error
    try:
        writer = CanonicalWriter(fd)
        for entry in entries:
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                source = os.open(entry.source, flags)
            except OSError as error:
                raise unreadable(entry.name, error) from error
            try:
                writer.add(entry.name, utf8=entry.utf8, source=source)
            finally:
                os.close(source)
        return writer.finish()
    except BaseException:
        target.unlink()
        raise
    finally:
        os.close(fd)


def unreadable(name: bytes, error: OSError) -> SourceUnreadable:
    """The refusal for a file that can't be opened or read."""
    return SourceUnreadable(
        f"{show(name)} can't be read: {error.strerror}.", hint="Check its permissions."
    )


def _read(fd: int, offset: int) -> bytes:
    try:
        return os.pread(fd, _CHUNK, offset)
    except OSError as error:
        raise SourceUnreadable(f"Reading a file failed: {error.strerror}.") from error


def _failed(error: OSError) -> CommitFailed:
    kind = NoSpace if error.errno in r.FULL else CommitFailed
    return kind(f"The archive can't be written: {error.strerror}.", hint="Check the disk.")
