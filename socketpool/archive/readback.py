"""Reading a merged archive back before it takes the original's place.

The new file is opened as strictly as any other.  Its directory must be the one that was written,
each new member is unpacked from it, and both edges of every copied range are compared with the
original: a wrong offset anywhere would show at an edge.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from socketpool.archive.inflate import chunks, verify
from socketpool.archive.reader import Archive
from socketpool.archive.refusals import CommitFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.archive.splice import Splice

_EDGE = 512


def read_back(
    fd: int,
    checksum: int,
    original: Archive,
    returned: Archive,
    splice: Splice,
    *,
    on_digest: Callable[[bytes], None] | None = None,
) -> None:
    """Raise unless the file ``fd`` is what was meant; also unpacks what came back, once.

    With ``on_digest`` it is called with the SHA-256 of each new member in turn.
    """
    with Archive(os.dup(fd), original.limits) as new:
        if len(new) != len(original) or new.checksum() != checksum:
            raise _differs()
        source = target = 0
        for row, (ordinal, incoming) in enumerate(
            zip(splice.ordinals, splice.incoming, strict=True)
        ):
            header, data = splice.headers[row], splice.data[row]
            if new.offsets[ordinal] != header:
                raise _differs()
            begins = original.offsets[ordinal]
            _compare(original, source, new, target, begins - source)
            if target + begins - source != header:
                raise _differs()
            member = returned.member(incoming)
            if on_digest is None:
                verify(member, new.read, data)
            else:
                import hashlib  # noqa: PLC0415 - loads a large library that few runs need

                digest = hashlib.sha256()
                for chunk in chunks(member, new.read, data):
                    digest.update(chunk)
                on_digest(digest.digest())
            source, target = splice.ends[row], data + member.packed
        _compare(original, source, new, target, original.ending.directory - source)
        if new.ending.directory != target + original.ending.directory - source:
            raise _differs()


def _compare(old: Archive, old_at: int, new: Archive, new_at: int, length: int) -> None:
    if length <= 0:
        return
    edge = min(_EDGE, length)
    ends = (0,) if length <= _EDGE else (0, length - edge)
    for skip in ends:
        if old.read(old_at + skip, edge) != new.read(new_at + skip, edge):
            raise _differs()


def _differs() -> CommitFailed:
    return CommitFailed(
        "The new archive doesn't read back as it was written; the old one is untouched.",
        hint="Check the disk and its file system.",
    )
