"""Opening files below a directory: folder by folder, and never through a symlink."""

from __future__ import annotations

import os
import stat
from typing import Final

from socketpool.archive.names import show
from socketpool.archive.refusals import SourceUnreadable
from socketpool.archive.writer import unreadable

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def open_parent(root: int, name: bytes) -> int:
    """The folder of a member, reached without following any link."""
    fd = os.dup(root)
    for part in name.split(b"/")[:-1]:
        try:
            below = os.open(part, FOLDER_FLAGS, dir_fd=fd)
        except OSError as error:
            raise unreadable(name, error) from error
        finally:
            os.close(fd)
        fd = below
    return fd


def open_file(root: int, name: bytes) -> int:
    """A regular file, for reading."""
    folder = open_parent(root, name)
    try:
        return open_at(folder, name.rpartition(b"/")[2], name)
    finally:
        os.close(folder)


def open_at(folder: int, last: bytes, name: bytes) -> int:
    """The regular file ``last`` in an open folder; ``name`` is for the message."""
    try:
        fd = os.open(last, _FILE_FLAGS, dir_fd=folder)
    except OSError as error:
        raise unreadable(name, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceUnreadable(f"{show(name)} is not a regular file.")
    return fd
