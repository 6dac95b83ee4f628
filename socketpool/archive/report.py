"""What a merge did, told member by member on demand instead of kept in many thousand objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from array import array
    from pathlib import Path

    from socketpool.archive.manifest import Manifest

T_co = TypeVar("T_co", covariant=True)


class Change(NamedTuple):
    """A member whose content is new."""

    name: bytes
    size_before: int
    size: int
    crc_before: int
    crc: int
    sha256: str
    """Of the new content, in hex; empty unless digests were asked for."""


class View(Sequence[T_co], Generic[T_co]):
    """A read-only sequence whose items are made when they are looked at."""

    __slots__ = ("_get", "_length")

    def __init__(self, length: int, get: Callable[[int], T_co]) -> None:
        self._length = length
        self._get = get

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T_co: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[T_co]: ...

    def __getitem__(self, at: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(at, slice):
            return [self._get(each) for each in range(self._length)[at]]
        return self._get(range(self._length)[at])


class MergeReport(NamedTuple):
    """The outcome of a merge."""

    path: Path
    """The file or directory that now holds the changes."""
    changed: Sequence[Change]
    unchanged: Sequence[bytes]
    """Names of members that came back as they were sent, and kept their original bytes."""
    missing: int
    """How many members were sent and did not come back; they are untouched."""
    written: bool
    """False when nothing had changed and so nothing was written."""
    backup: Path | None


class Changes:
    """Changes in columns; :meth:`view` shows them as records."""

    __slots__ = ("_crcs", "_digests", "_manifest", "_rows", "_sizes")

    def __init__(
        self, rows: array[int], manifest: Manifest, sizes: array[int], crcs: array[int]
    ) -> None:
        """``rows`` of the manifest have new content of these sizes and checksums."""
        self._rows = rows
        self._manifest = manifest
        self._sizes = sizes
        self._crcs = crcs
        self._digests = bytearray()

    def add_digest(self, digest: bytes) -> None:
        """The SHA-256 of the next change that has none yet."""
        self._digests += digest

    def view(self) -> View[Change]:
        """The changes in the order of the original."""
        return View(len(self._rows), self._change)

    def _change(self, at: int) -> Change:
        sent = self._manifest[self._rows[at]]
        digest = bytes(self._digests[32 * at : 32 * at + 32]).hex()
        return Change(sent.name, sent.size, self._sizes[at], sent.crc, self._crcs[at], digest)
