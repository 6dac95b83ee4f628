"""What a merge did, told member by member on demand instead of kept in many thousand objects."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, overload

if TYPE_CHECKING:
    from pathlib import Path

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
    """Collects changes in columns; :meth:`view` shows them as records."""

    __slots__ = ("_before", "_digests", "_name", "_now", "_rows")

    def __init__(self, name: Callable[[int], bytes]) -> None:
        """``name`` gives a row's name."""
        self._name = name
        self._rows = array("L")
        self._before = array("Q")
        self._now = array("Q")
        self._digests = bytearray()

    def add(
        self, row: int, before: tuple[int, int], now: tuple[int, int], digest: bytes = b""
    ) -> None:
        """``before`` and ``now`` are size and CRC."""
        self._rows.append(row)
        self._before.extend(before)
        self._now.extend(now)
        self._digests += digest

    def add_digest(self, digest: bytes) -> None:
        """The digest of the next change that has none yet."""
        self._digests += digest

    def view(self) -> View[Change]:
        """The changes in the order they were added."""
        return View(len(self._rows), self._change)

    def _change(self, at: int) -> Change:
        size_before, crc_before = self._before[2 * at : 2 * at + 2]
        size, crc = self._now[2 * at : 2 * at + 2]
        digest = bytes(self._digests[32 * at : 32 * at + 32]).hex()
        return Change(self._name(self._rows[at]), size_before, size, crc_before, crc, digest)
