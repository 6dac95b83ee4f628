"""Putting a new file in the place of an old one, so that there is always one of the two.

The new content grows in a temporary file beside the target and becomes the target by a rename, once
it is on disk.  Whoever is killed leaves at most a temporary file, which the next run recognises by
its name and sweeps: a lock on it tells the living from the dead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from socketpool.archive.closing import Closes
from socketpool.archive.manifest import changed
from socketpool.archive.names import show
from socketpool.archive.refusals import ArchiveBusy, CannotPreserve, CommitFailed, NoSpace
from socketpool.archive.ziprecords import FULL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from socketpool.archive.reader import Archive

_TEMPORARY = re.compile(rb"\..*\.socketpool-[0-9a-f]{12}\.tmp", re.DOTALL)
_BUFFER: Final = 1 << 18
_SMALL: Final = 1 << 16
_NO_FAST_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def open_folder(path: Path) -> int:
    """A descriptor for the folder at ``path``."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise failed(error, os.fsencode(path.name)) from error


def sweep(folder: int) -> None:
    """Remove temporary files in ``folder`` whose makers are gone."""
    with os.scandir(folder) as entries:
        names = [os.fsencode(entry.name) for entry in entries if ".socketpool-" in entry.name]
    for name in names:
        if not _TEMPORARY.fullmatch(name):
            continue
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError:
            continue
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=folder)
        except OSError:
            pass  # its maker lives, or it isn't ours to remove
        finally:
            os.close(fd)


class Replacement(Closes):
    """The file that will be ``name`` in ``folder``; gone again unless :meth:`commit` is called.

    Raises :class:`CommitFailed` (:class:`NoSpace` when the disk is full) from every method.
    """

    def __init__(self, folder: int, name: bytes, temporary: bytes = b"") -> None:
        """``temporary`` is the name that the file has until then; made up if empty."""
        self.position = 0
        self._folder = folder
        self._name = name
        self._buffer = bytearray()
        self._pending = True
        try:
            self.fd, self._temporary = self._create() if not temporary else self._named(temporary)
        except OSError as error:
            raise failed(error, name) from error

    def _create(self) -> tuple[int, bytes]:
        while True:
            name = temporary_name(self._name)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=self._folder)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # a sweep was faster: it has removed the file, or is about to
            except OSError:
                return fd, name  # a file system without locks: nothing is ever swept there
            else:
                if os.fstat(fd).st_nlink:
                    return fd, name
            os.close(fd)

    def _named(self, name: bytes) -> tuple[int, bytes]:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._folder), name

    def leave(self) -> None:
        """Bring the file to the disk under its temporary name, for somebody else to rename."""
        self.flush()
        try:
            os.fsync(self.fd)
        except OSError as error:
            raise failed(error, self._name) from error
        self._pending = False

    def close(self) -> None:
        """Give up the file; what was not committed goes."""
        if self._pending:
            with suppress(OSError):  # the next run sweeps it
                os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self.fd)

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``."""
        self._buffer += data
        self.position += len(data)
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def copy(self, archive: Archive, offset: int, length: int) -> None:
        """Append a range of an archive's file; the kernel copies what is large."""
        if length <= _SMALL:
            self.write(archive.read(offset, length))
            return
        self.flush()
        try:
            self._copy(archive, offset, length)
        except OSError as error:
            raise failed(error, self._name) from error
        self.position += length

    def flush(self) -> None:
        """Hand everything appended so far to the kernel."""
        try:
            with memoryview(self._buffer) as view:
                written = 0
                while written < len(view):
                    written += os.write(self.fd, view[written:])
        except OSError as error:
            raise failed(error, self._name) from error
        self._buffer.clear()

    def _copy(self, archive: Archive, offset: int, length: int) -> None:
        end = offset + length
        sparse = archive.stat.st_blocks * 512 < archive.size
        while offset < end:
            stop = end
            if sparse:
                hole, stop = _next_data(archive.fd, offset, end)
                os.lseek(self.fd, hole, os.SEEK_CUR)
                offset += hole
            while offset < stop:
                moved = _move(archive.fd, self.fd, offset, min(stop - offset, 1 << 30))
                if not moved:
                    raise changed()
                offset += moved

    def run(self, write: Callable[[], None]) -> None:
        """Let ``write`` fill the empty file through :attr:`fd`."""
        try:
            write()
        except OSError as error:
            raise failed(error, self._name) from error

    def preserve(self, original: int) -> None:
        """Give the new file the mode, owner and extended attributes of an open one."""
        kept = os.fstat(original)
        mine = os.fstat(self.fd)
        try:
            if (mine.st_uid, mine.st_gid) != (kept.st_uid, kept.st_gid):
                os.fchown(self.fd, kept.st_uid, kept.st_gid)
            os.fchmod(self.fd, stat.S_IMODE(kept.st_mode))
            for key in os.listxattr(original):
                self._copy_attribute(original, key)
        except OSError as error:
            if error.errno in FULL:
                raise failed(error, self._name) from error
            raise CannotPreserve(
                f"The owner or attributes of {show(self._name)} can't be kept: {error.strerror}.",
                hint="Run as the file's owner, or write another file with --output.",
            ) from error

    def adopt_mode(self, original: int) -> None:
        """Give the new file the permissions of an open one; the rest is its new owner's."""
        try:
            os.fchmod(self.fd, stat.S_IMODE(os.fstat(original).st_mode) & 0o777)
        except OSError as error:
            raise failed(error, self._name) from error

    def _copy_attribute(self, original: int, key: str) -> None:
        try:
            os.setxattr(self.fd, key, os.getxattr(original, key))
        except OSError:
            if not key.startswith("security."):  # labels are the system's to give
                raise

    def commit(self, *, backup: str = "") -> bytes:
        """Make the file the target, on disk before and after; keep the old one as name+backup.

        Returns the backup's name, which has a number behind it when an earlier backup is there.
        """
        self.flush()
        folder, name = self._folder, self._name
        try:
            os.fsync(self.fd)
            kept = keep_old(folder, name, name + os.fsencode(backup)) if backup else b""
            os.rename(self._temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            self._pending = False
        except OSError as error:
            raise failed(error, name) from error
        try:
            os.fsync(folder)
        except OSError as error:
            raise CommitFailed(
                f"The new {show(name)} is in place, but its folder can't be synced:"
                f" {error.strerror}.",
                hint="Check the disk; a power failure now could bring the old one back.",
            ) from error
        return kept


def keep_old(folder: int, name: bytes, backup: bytes) -> bytes:
    """Give the file a second name, with a number behind it if it is taken; the name it got.

    A link is whole or absent, a copy may be torn; and no earlier backup is overwritten.  Raises
    OSError.
    """
    for number in count():
        kept = backup if not number else b"%s.%d" % (backup, number)
        try:
            os.link(name, kept, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            there = os.stat(kept, dir_fd=folder, follow_symlinks=False)
            if not os.path.samestat(there, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                continue
        return kept
    raise AssertionError  # pragma: no cover - count() has no end


def check_backup_suffix(suffix: str) -> None:
    """Refuse a suffix that would name a file somewhere else."""
    if not suffix or "/" in suffix or "\0" in suffix:
        raise CommitFailed(
            f"The backup suffix {suffix!r} can't be part of a file name.", hint="Use one like .bak."
        )


def check_writable(path: Path) -> None:
    """Refuse to replace a file its owner has made read-only, though a rename could."""
    if not os.access(path, os.W_OK):
        raise CommitFailed(
            f"The file {show(os.fsencode(path.name))} is read-only.",
            hint="Make it writable, or write another file with --output.",
        )


def lock(archive: Archive) -> None:
    """Make sure that no other merge works on the archive; released when it is closed."""
    try:
        fcntl.flock(archive.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ArchiveBusy(
            "Another merge into this archive is running.", hint="Wait for it and try again."
        ) from error
    except OSError:
        pass  # a file system without locks: the check before the rename remains


def failed(error: OSError, name: bytes) -> CommitFailed:
    """The refusal for an operating system's error while replacing ``name``."""
    if error.errno in FULL:
        return NoSpace(
            f"There is no room for the new {show(name)}; the old one is untouched.",
            hint="Free some space; the new file needs as much as the old one while both exist.",
        )
    return CommitFailed(
        f"The new {show(name)} can't be written: {error.strerror}. The old one is untouched.",
        hint="Check the folder's permissions, or write another file with --output.",
    )


def temporary_name(name: bytes) -> bytes:
    """A new name that :func:`sweep` recognises."""
    return b".%s.socketpool-%s.tmp" % (name[:200], os.urandom(6).hex().encode())


def _move(source: int, target: int, offset: int, length: int) -> int:
    try:
        return os.copy_file_range(source, target, length, offset)
    except OSError as error:
        if error.errno not in _NO_FAST_COPY:
            raise
    return os.sendfile(target, source, offset, length)


def _next_data(fd: int, offset: int, end: int) -> tuple[int, int]:
    """The length of the hole at ``offset`` and where the data after it stops, within ``end``."""
    try:
        data = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
            return end - offset, end
        raise
    if data >= end:
        return end - offset, end
    return data - offset, min(end, os.lseek(fd, data, os.SEEK_HOLE))
