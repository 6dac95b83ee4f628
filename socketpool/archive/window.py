"""Reading a file at many places that are mostly close together and in order.

A system call for each header of a hundred thousand small members would cost more than all the rest;
reading far ahead for each of a few large ones would be worse.  A window reads ahead only when the
last few reads were near each other.
"""

from __future__ import annotations

import os

from socketpool.archive.refusals import DamagedArchive, SourceUnreadable

_AHEAD = 1 << 18
_NEAR = 1 << 14
_GUESS = 256

MAX_OFFSET = 2**62
"""No file is longer than this, in bytes; a larger offset doesn't fit into a system call's."""


def read_exactly(fd: int, offset: int, length: int) -> bytes:
    """Exactly ``length`` bytes at ``offset``, or :class:`DamagedArchive`."""
    data = read_some(fd, offset, length)
    if len(data) == length:
        return data
    parts = [data]
    missing = length - len(data)
    while missing and data:
        data = read_some(fd, offset + length - missing, missing)
        parts.append(data)
        missing -= len(data)
    if missing:
        raise DamagedArchive(
            "The archive ends in the middle of its data.", hint="Fetch or build it again."
        )
    return b"".join(parts)


def read_some(fd: int, offset: int, length: int) -> bytes:
    """Up to ``length`` bytes at ``offset``; fewer at the end of the file."""
    if offset > MAX_OFFSET:
        return b""  # an archive's record may state any number below 2**64
    try:
        return os.pread(fd, length, offset)
    except OSError as error:
        raise SourceUnreadable(
            f"Reading the archive failed: {error.strerror}.", hint="Check the disk."
        ) from error


class Window:
    """A read-only view of an open file that remembers the neighbourhood of the last read."""

    __slots__ = ("_data", "_end", "_start", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._start = 0
        self._end = 0
        self._data = b""

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``."""
        end = offset + length
        start = self._start
        if start <= offset and end <= self._end:
            return self._data[offset - start : end - start]
        if length >= _AHEAD:
            return read_exactly(self.fd, offset, length)
        near = start <= offset <= self._end + _NEAR
        data = read_some(self.fd, offset, max(length, _AHEAD) if near else length + _GUESS)
        if len(data) < length:
            data = read_exactly(self.fd, offset, length)
        self._data, self._start, self._end = data, offset, offset + len(data)
        return data[:length]
