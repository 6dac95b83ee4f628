"""Implode: a canonical archive of what may leave, made while it is being sent.

The packed bytes of each member are taken from the original as they are, under fresh headers; no
other byte of the original is read into the stream.  Every local header is checked before the first
byte is handed out, so a refusal means that nothing has left.
"""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Protocol

from socketpool.archive import ziprecords as r
from socketpool.archive.canonical import Canonical, Size
from socketpool.archive.inflate import verify as verify_member
from socketpool.archive.manifest import ZIP, Manifest, changed, check_unchanged, identify
from socketpool.archive.names import is_utf8, sent_name, show
from socketpool.archive.receipt import digest_members
from socketpool.archive.refusals import LyingMember
from socketpool.system.filerange import FileRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.archive.reader import Archive
    from socketpool.archive.receipt import SentMember

_BUFFER = 1 << 18
_INLINE = 1 << 16
_ODD_STARTS = b"/."
"""First bytes of names that may travel under another one; asked here, where each call counts."""


class Imploded(Protocol):
    """An archive ready to be sent."""

    @property
    def size(self) -> int:
        """Bytes in all segments together."""

    @property
    def manifest(self) -> Manifest:
        """What leaves."""

    def segments(self) -> Iterator[bytes | FileRange]:
        """The archive in order; may be asked for again, and gives the same bytes each time."""

    def digests(self) -> Iterator[SentMember]:
        """SHA-256 of what leaves, for the receipt."""


class ImplodedZip:
    """An :class:`Imploded` whose data comes straight from an open :class:`Archive`."""

    __slots__ = ("_archive", "_data", "_sent", "manifest", "size")

    def __init__(
        self, archive: Archive, sent: array[int], data: array[int], size: int, manifest: Manifest
    ) -> None:
        self.size = size
        self.manifest = manifest
        self._archive = archive
        self._sent = sent
        self._data = data

    def segments(self) -> Iterator[bytes | FileRange]:
        """Raises :class:`ArchiveChanged` at the end if the original was written to meanwhile."""
        archive = self._archive
        layout = Canonical()
        buffer = bytearray()
        for ordinal, data in zip(self._sent, self._data, strict=True):
            name, flags, method, crc, packed, size = archive.brief(ordinal)
            if name[:1] in _ODD_STARTS:
                name = sent_name(name)
            # Whoever reads the stream would trip over a name that isn't what its flag says.
            utf8 = flags & r.UTF8 != 0 and is_utf8(name)
            buffer += layout.add(name, utf8=utf8, method=method, crc=crc, packed=packed, size=size)
            if packed <= _INLINE:
                buffer += archive.read(data, packed)
            else:
                yield bytes(buffer)
                buffer.clear()
                yield FileRange(archive.fd, data, packed)
            if len(buffer) >= _BUFFER:
                yield bytes(buffer)
                buffer.clear()
        check_unchanged(archive.fd, archive.stat)
        buffer += layout.end()
        yield bytes(buffer)

    def digests(self) -> Iterator[SentMember]:
        """Unpacks every member that leaves; raises when one isn't what it claims."""
        return digest_members(self._archive, self._sent)


def implode_zip(
    archive: Archive,
    sent: array[int],
    *,
    verify: bool = False,
    places: array[int] | None = None,
) -> ImplodedZip:
    """Prepare the members ``sent`` of ``archive`` for sending; the archive must stay open.

    ``places`` are where members' data begins, as far as that was looked up before, else 0.  With
    ``verify`` each member is unpacked as well, which proves its checksum and that nothing hides
    behind the end of its packed data.
    """
    size = Size()
    found = array("Q")
    manifest = Manifest(ZIP, identify(archive))
    for ordinal in sent:
        name, _, method, crc, packed, unpacked = archive.brief(ordinal)
        if method == r.STORED and packed != unpacked:
            raise LyingMember(
                f"The member {show(name)} is stored but has two different sizes.",
                hint="Build the archive again with a current zip program.",
            )
        place = (places[ordinal] if places is not None else 0) or archive.place(ordinal)
        if verify:
            verify_member(archive.member(ordinal), archive.read, place)
        found.append(place)
        length = len(sent_name(name)) if name[:1] in _ODD_STARTS else len(name)
        size.add(length, packed, unpacked)
        manifest.add(ordinal, name, crc, unpacked)
    return ImplodedZip(archive, sent, found, size.total, manifest)


def copy_segments(imploded: Imploded, fd: int) -> None:
    """Write all segments to an open file; raises :class:`OSError`."""
    for segment in imploded.segments():
        if isinstance(segment, FileRange):
            source, offset, missing = segment
            while missing:
                # sendfile works between any two files; a short count is normal.
                moved = os.sendfile(fd, source, offset, min(missing, 1 << 30))
                if not moved:
                    raise changed()
                offset += moved
                missing -= moved
        else:
            view = memoryview(segment)
            while view:
                view = view[os.write(fd, view) :]
