"""A copy of a directory tree that appears under its name when it is complete."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from socketpool.archive.closing import Closes
from socketpool.archive.commit import failed, temporary_name
from socketpool.archive.names import show
from socketpool.archive.opening import FOLDER_FLAGS, open_parent
from socketpool.archive.refusals import CannotPreserve
from socketpool.archive.transaction import OURS
from socketpool.archive.writer import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 30


class FolderCopy(Closes):
    """A copy of the open folder ``source``, beside its final place; gone unless committed.

    Contents, links, modes, times and extended attributes are kept, and owners as far as allowed.
    Raises :class:`~socketpool.errors.ArchiveError`.
    """

    def __init__(self, source: int, output: Path) -> None:
        self._output = output.absolute()
        self._temporary = self._output.with_name(
            os.fsdecode(temporary_name(os.fsencode(output.name)))
        )
        self._pending = True
        try:
            self._temporary.mkdir(mode=0o700)
        except OSError as error:
            raise failed(error, os.fsencode(output.name)) from error
        try:
            self.fd = os.open(self._temporary, FOLDER_FLAGS)
            self._source = source
            self._folders = [b""]
            self._copy_tree(source, self.fd, b"")
        except BaseException:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise

    def commit(self) -> None:
        """Give the copy its name."""
        try:
            # Deepest first, and now: a folder that is read-only could not have been filled.
            for name in reversed(self._folders):
                old, new = open_parent(self._source, name), open_parent(self.fd, name)
                try:
                    _copy_attributes(old, new)
                finally:
                    os.close(old)
                    os.close(new)
            if os.path.lexists(self._output):
                raise FileExistsError(17, "it exists already")
            self._temporary.rename(self._output)
            self._pending = False
        except OSError as error:
            raise failed(error, os.fsencode(self._output.name)) from error

    def close(self) -> None:
        """Remove what was not committed."""
        os.close(self.fd)
        if self._pending:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _copy_tree(self, source: int, target: int, above: bytes) -> None:
        for last, mode in _entries(source, above):
            name = above + last
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(last, dir_fd=source), last, dir_fd=target)
                continue
            if stat.S_ISFIFO(mode):
                os.mkfifo(last, stat.S_IMODE(mode), dir_fd=target)
                continue
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise CannotPreserve(
                    f"{show(name)} is a special file and can't be copied.",
                    hint="Merge into the folder itself, without --output.",
                )
            try:
                old = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
            except OSError as error:
                raise unreadable(name, error) from error
            try:
                if stat.S_ISDIR(mode):
                    os.mkdir(last, 0o700, dir_fd=target)
                    new = os.open(last, FOLDER_FLAGS, dir_fd=target)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                    new = os.open(last, flags, 0o600, dir_fd=target)
                try:
                    if stat.S_ISDIR(mode):
                        self._folders.append(name + b"/")
                        self._copy_tree(old, new, name + b"/")
                    else:
                        _copy_content(old, new)
                        _copy_attributes(old, new)
                finally:
                    os.close(new)
            except OSError as error:
                raise failed(error, name) from error
            finally:
                os.close(old)


def _entries(folder: int, above: bytes) -> Iterator[tuple[bytes, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            last = os.fsencode(entry.name)
            if not OURS.fullmatch(last):
                try:
                    yield last, entry.stat(follow_symlinks=False).st_mode
                except OSError as error:
                    raise unreadable(above + last, error) from error


def _copy_content(old: int, new: int) -> None:
    offset, size = 0, os.fstat(old).st_size
    while offset < size:
        moved = os.sendfile(new, old, offset, min(size - offset, _CHUNK))
        if not moved:
            return
        offset += moved


def _copy_attributes(old: int, new: int) -> None:
    kept = os.fstat(old)
    if os.geteuid() == 0:
        os.fchown(new, kept.st_uid, kept.st_gid)
    os.fchmod(new, stat.S_IMODE(kept.st_mode))
    for key in os.listxattr(old):
        if not key.startswith("security."):
            os.setxattr(new, key, os.getxattr(old, key))
    os.utime(new, ns=(kept.st_atime_ns, kept.st_mtime_ns))
