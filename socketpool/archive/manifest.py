"""The manifest: which members left, and of which archive; merge accepts nothing else back.

It is kept in columns, since an archive may have a hundred thousand members.  On disk it is JSON,
one object about the archive and then one list a member, each on a line, so that it can be read
without holding it twice.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from socketpool.archive.refusals import ArchiveChanged, BadManifest, CommitFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from socketpool.archive.reader import Archive

ZIP: Final = "zip"
DIRECTORY: Final = "directory"
_FORMAT = 1
_MAX_LINE = 1 << 20


class ArchiveIdentity(NamedTuple):
    """What tells one state of an archive from another; all zero for a directory."""

    size: int = 0
    modified: int = 0
    device: int = 0
    inode: int = 0
    members: int = 0
    checksum: int = 0
    """CRC-32 of the central directory, which itself holds every member's CRC-32."""


class Sent(NamedTuple):
    """One member that left."""

    ordinal: int
    name: bytes
    crc: int
    size: int


class Manifest:
    """What left: an identity and, in the order sent, the members."""

    __slots__ = ("_crcs", "_ends", "_names", "_ordinals", "_sizes", "identity", "kind")

    def __init__(self, kind: str, identity: ArchiveIdentity) -> None:
        self.kind = kind
        self.identity = identity
        self._names = bytearray()
        self._ends = array("Q", (0,))
        self._ordinals = array("I")
        self._crcs = array("I")
        self._sizes = array("Q")

    def add(self, ordinal: int, name: bytes, crc: int, size: int) -> None:
        """Append a member; names must not repeat."""
        self._names += name
        self._ends.append(len(self._names))
        self._ordinals.append(ordinal)
        self._crcs.append(crc)
        self._sizes.append(size)

    def __len__(self) -> int:
        return len(self._ordinals)

    def __getitem__(self, at: int) -> Sent:
        return Sent(self._ordinals[at], self.name(at), self._crcs[at], self._sizes[at])

    def __iter__(self) -> Iterator[Sent]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        same = (self.kind, self.identity, len(self)) == (other.kind, other.identity, len(other))
        return same and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def name(self, at: int) -> bytes:
        """The raw name of the member sent as number ``at``."""
        return bytes(self._names[self._ends[at] : self._ends[at + 1]])

    def facts(self, at: int) -> tuple[int, int, int]:
        """Ordinal, CRC and size of the member sent as number ``at``."""
        return self._ordinals[at], self._crcs[at], self._sizes[at]

    def lines(self) -> Iterator[str]:
        """The manifest as JSON, line by line."""
        import json  # noqa: PLC0415 - only those who carry files by hand pay for it

        head = {"format": _FORMAT, "kind": self.kind, "members": len(self)}
        yield json.dumps(head | {"archive": self.identity._asdict()}) + "\n"
        for ordinal, name, crc, size in self:
            yield json.dumps([ordinal, name.decode(errors="surrogateescape"), crc, size]) + "\n"

    def to_json(self) -> str:
        """All lines in one string."""
        return "".join(self.lines())

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The inverse of :meth:`to_json`; raises :class:`BadManifest`."""
        return cls.from_lines(text.splitlines())

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Manifest:
        """Read what :meth:`lines` wrote; raises :class:`BadManifest`."""
        import json  # noqa: PLC0415

        rows = iter(lines)
        try:
            head: Any = json.loads(next(rows))
            kind, count, identity = (
                head["kind"],
                head["members"],
                ArchiveIdentity(**head["archive"]),
            )
            if head["format"] != _FORMAT or kind not in (ZIP, DIRECTORY):
                raise _bad()
            if not all(type(each) is int and each >= 0 for each in identity):
                raise _bad()
            manifest = cls(kind, identity)
            seen = set()
            for row in rows:
                ordinal, name, crc, size = json.loads(row)
                raw = name.encode(errors="surrogateescape")
                seen.add(hash(raw))
                manifest.add(ordinal, raw, crc, size)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise _bad() from error
        except StopIteration:
            raise _bad() from None
        if len(manifest) != count or (kind == ZIP and len(seen) > identity.members):
            raise _bad()
        return manifest

    def write(self, path: Path) -> None:
        """Write the manifest to ``path``; raises :class:`CommitFailed`."""
        try:
            with path.open("w", encoding="ascii") as stream:
                stream.writelines(self.lines())
        except OSError as error:
            raise CommitFailed(
                f"The manifest {path} can't be written: {error.strerror}.",
                hint="Choose another place with --manifest.",
            ) from error

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a manifest from ``path``; raises :class:`BadManifest`."""
        try:
            with path.open(encoding="ascii") as stream:
                return cls.from_lines(iter(lambda: stream.readline(_MAX_LINE), ""))
        except OSError as error:
            raise BadManifest(
                f"The manifest {path} can't be read: {error.strerror}.",
                hint="Implode writes it beside its output; --manifest says where it is.",
            ) from error
        except UnicodeDecodeError as error:
            raise _bad() from error


def identify(archive: Archive) -> ArchiveIdentity:
    """The identity of an open archive."""
    seen = archive.stat
    return ArchiveIdentity(
        size=seen.st_size,
        modified=seen.st_mtime_ns,
        device=seen.st_dev,
        inode=seen.st_ino,
        members=len(archive),
        checksum=archive.checksum(),
    )


def check_identity(archive: Archive, sent_from: ArchiveIdentity) -> None:
    """Refuse an archive that isn't in the state its members were sent from.

    A copy of the archive will do: what counts is the content.  Only the very same file has to have
    the same time too, because its members' data may have been overwritten in place.
    """
    now = identify(archive)
    same_file = (now.device, now.inode) == (sent_from.device, sent_from.inode)
    touched = same_file and now.modified != sent_from.modified
    contents = (now.size, now.members, now.checksum)
    if touched or contents != (sent_from.size, sent_from.members, sent_from.checksum):
        raise changed()


def check_unchanged(fd: int, seen: os.stat_result) -> None:
    """Refuse when an open file was written to since ``seen``."""
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
        raise changed()


def changed() -> ArchiveChanged:
    """The refusal when the original is no longer what it was."""
    return ArchiveChanged(
        "The archive has changed since its members were sent.",
        hint="Nothing was written. Send the archive again as it is now.",
    )


def _bad() -> BadManifest:
    return BadManifest(
        "The manifest is damaged or not one.", hint="Use the file that implode wrote."
    )
