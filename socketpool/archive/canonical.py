"""Canonical archives: what travels between client and server, in either direction.

A canonical archive says nothing but names, methods, checksums and sizes: its members follow each
other without gaps, their date is the first one the format knows, they have no attributes or
comments, and an extra field only where ZIP64 needs one.
"""

from __future__ import annotations

from struct import Struct

from socketpool.archive import ziprecords as r

_COMMON = Struct("<2H4LH")
_ZIP64_SIZES = Struct("<2H2Q")


class Canonical:
    """Lays out one canonical archive: call :meth:`add` for each member in turn, then :meth:`end`.

    It makes the headers; the caller puts ``packed`` bytes of data behind each.
    """

    __slots__ = ("_central", "members", "position")

    def __init__(self) -> None:
        self._central = bytearray()
        self.members = 0
        self.position = 0
        """How long the archive is so far, data included."""

    def add(
        self, name: bytes, *, utf8: bool, method: int, crc: int, packed: int, size: int
    ) -> bytes:
        """The local header of the next member."""
        flags = r.UTF8 if utf8 else 0
        offset = self.position
        if size < r.M32 and packed < r.M32 and offset < r.M32:
            # Both headers have this part in common; it is made once.
            common = _COMMON.pack(flags, method, r.FIRST_DATE, crc, packed, size, len(name))
            self._central += b"PK\1\2\x14\0\x14\0%b%b%b%b" % (
                common,
                bytes(12),
                offset.to_bytes(4, "little"),
                name,
            )
            self.members += 1
            self.position = offset + 30 + len(name) + packed
            return b"PK\3\4\x14\0%b\0\0%b" % (common, name)
        values = (size, packed, offset)
        self._central += _wide_central(name, (45, 45, flags, method, r.FIRST_DATE, crc), values)
        header = local_header(name, utf8=utf8, method=method, crc=crc, packed=packed, size=size)
        self.members += 1
        self.position = offset + len(header) + packed
        return header

    def end(self) -> bytes:
        """The central directory and end record; with ZIP64 records only when they are needed."""
        size, offset, count = len(self._central), self.position, self.members
        end = bytes(self._central)
        if count >= r.M16 or size >= r.M32 or offset >= r.M32:
            end += r.zip64_end(count, size, offset, offset + size)
        return end + r.END.pack(
            r.END_SIGNATURE,
            *(0, 0, min(count, r.M16), min(count, r.M16), min(size, r.M32), min(offset, r.M32), 0),
        )


class Size:
    """The length of a canonical archive, known before any of it is made."""

    __slots__ = ("_central", "_members", "_position")

    def __init__(self) -> None:
        self._central = self._members = self._position = 0

    def add(self, length: int, packed: int, size: int) -> None:
        """Count a member whose name has ``length`` bytes."""
        if size < r.M32 and packed < r.M32 and self._position < r.M32:
            self._central += 46 + length
            self._position += 30 + length + packed
        else:
            wide = size >= r.M32 or packed >= r.M32
            self._central += 50 + length + (16 if wide else 0)
            self._central += 8 if self._position >= r.M32 else 0
            self._position += 30 + length + packed + (20 if wide else 0)
        self._members += 1

    @property
    def total(self) -> int:
        """Of everything, the end record included."""
        wide = self._members >= r.M16 or self._central >= r.M32 or self._position >= r.M32
        return self._position + self._central + (98 if wide else 22)


def local_header(
    name: bytes, *, utf8: bool, method: int, crc: int, packed: int, size: int
) -> bytes:
    """A canonical local header, name included."""
    flags = r.UTF8 if utf8 else 0
    signature, length = r.LOCAL_SIGNATURE, len(name)
    if packed < r.M32 and size < r.M32:
        return (
            r.LOCAL.pack(signature, 20, flags, method, r.FIRST_DATE, crc, packed, size, length, 0)
            + name
        )
    extra = _ZIP64_SIZES.pack(r.ZIP64_ID, 16, size, packed)
    return (
        r.LOCAL.pack(
            signature, 45, flags, method, r.FIRST_DATE, crc, r.M32, r.M32, length, len(extra)
        )
        + name
        + extra
    )


def _wide_central(name: bytes, described: tuple[int, ...], values: tuple[int, int, int]) -> bytes:
    """A central record with a ZIP64 field for those of size, packed size, offset that don't fit."""
    size, packed, offset = values
    extra = b""
    if packed >= r.M32 or size >= r.M32:
        extra = size.to_bytes(8, "little") + packed.to_bytes(8, "little")
        packed = size = r.M32
    if offset >= r.M32:
        extra += offset.to_bytes(8, "little")
        offset = r.M32
    extra = r.FIELD.pack(r.ZIP64_ID, len(extra)) + extra
    return (
        r.CENTRAL.pack(
            r.CENTRAL_SIGNATURE,
            *described,
            *(packed, size, len(name), len(extra)),
            *(0, 0, 0, 0, offset),
        )
        + name
        + extra
    )
