"""What is sent: bytes that can be had again and again, in pieces, and their digest.

A transfer that is resumed reads its source once more, and the digest is made beside the sending;
so a source gives the same bytes each time it is asked, or the transfer fails.
"""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol

from socketpool.errors import SourceChanged
from socketpool.system.filerange import FileRange

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20
PIECE = 4 << 20
"""Bytes handed to the kernel at once; progress is told after each."""

_ASIDE_FROM = 1 << 20  # smaller files are digested before their thread would have started


class FileSource(Protocol):
    """Bytes to send, as often as it takes: each call of ``segments`` gives the same."""

    @property
    def size(self) -> int:
        """Bytes in all segments together."""

    def segments(self) -> Iterator[bytes | FileRange]:
        """The bytes in order, or where in an open file they are."""


class OpenFile(NamedTuple):
    """An open file as a source; it must not change meanwhile."""

    fd: int
    size: int

    def segments(self) -> Iterator[bytes | FileRange]:
        """The file, whole."""
        yield FileRange(self.fd, 0, self.size)


def pieces_from(source: FileSource, offset: int) -> Iterator[bytes | FileRange]:
    """The source from an offset on, in pieces; raises SourceChanged when its size is not as
    promised.

    One byte too many is noticed before it is handed out.
    """
    position = 0
    for segment in source.segments():
        length = segment.length if isinstance(segment, FileRange) else len(segment)
        skipped = min(length, max(0, offset - position))
        position += length
        if position > source.size:
            break
        for start in range(skipped, length, PIECE):
            count = min(PIECE, length - start)
            if isinstance(segment, FileRange):
                yield FileRange(segment.fd, segment.offset + start, count)
            else:
                yield segment[start : start + count]
    if position != source.size:
        raise SourceChanged


def read_range(piece: FileRange) -> Iterator[bytes]:
    offset, end = piece.offset, piece.offset + piece.length
    while offset < end:
        chunk = os.pread(piece.fd, min(CHUNK, end - offset), offset)
        if not chunk:
            raise SourceChanged
        yield chunk
        offset += len(chunk)


class Digest:
    """The SHA-256 of a source, made beside the sending: hashing lets other threads run."""

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._digest = b""
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        if source.size < _ASIDE_FROM:
            self._make()
        else:
            self._thread = threading.Thread(target=self._make, daemon=True, name="digest")
            self._thread.start()

    def result(self) -> bytes:
        """The digest; raises what reading the source raised."""
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._digest

    def _make(self) -> None:
        digest = hashlib.sha256()
        try:
            for piece in pieces_from(self._source, 0):
                if isinstance(piece, FileRange):
                    for chunk in read_range(piece):
                        digest.update(chunk)
                else:
                    digest.update(piece)
        except Exception as error:  # noqa: BLE001 - raised again by result()
            self._failure = error
        self._digest = digest.digest()
