"""Parts of open files that the kernel sends itself, without a copy through this process."""

from __future__ import annotations

from typing import NamedTuple


class FileRange(NamedTuple):
    """Bytes of an open file, for ``sendfile``; valid until the next segment is asked for."""

    fd: int
    offset: int
    length: int
