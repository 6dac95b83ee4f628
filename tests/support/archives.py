"""Builds zips with every feature and every defect, and takes them apart again without our reader.

Nothing here imports the engine: what it says about an archive is a second opinion.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

M16, M32 = 0xFFFF, 0xFFFFFFFF
UNIX_FILE = 0o100644 << 16
UNIX_LINK = 0o120777 << 16
UNIX_FIFO = 0o010644 << 16
TIMES = struct.pack("<HHBL", 0x5455, 5, 1, 1_600_000_000)


@dataclass(frozen=True)
class Spec:
    """A member to build; what is None follows from the rest."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    date: int = 0x5A215A21
    made: int = 0x031E
    external: int = UNIX_FILE
    internal: int = 0
    local_extra: bytes = b""
    central_extra: bytes = b""
    comment: bytes = b""
    descriptor: str = ""
    """One of sig32, sig64, bare32, bare64."""
    zip64: bool = False
    gap: bytes = b""
    """Bytes in front of the local header that belong to nobody."""
    raw: bytes | None = None
    """Packed bytes; for methods this builder doesn't know."""
    local_name: bytes | None = None
    crc: int | None = None
    size: int | None = None
    local_crc: int | None = None
    local_size: int | None = None
    disk: int = 0
    offset: int | None = None


@dataclass
class Built:
    """An archive with where everything in it lies."""

    data: bytes
    extents: list[tuple[int, int]] = field(default_factory=list)
    """From the local header to the end of data or descriptor, in the order of the specs."""
    directory: int = 0


def pack(spec: Spec) -> bytes:
    if spec.raw is not None:
        return spec.raw
    if spec.method == 0:
        return spec.data
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(spec.data) + deflater.flush()


def build(
    specs: Sequence[Spec],
    *,
    prefix: bytes = b"",
    counted_prefix: bool = False,
    comment: bytes = b"",
    trailing: bytes = b"",
    zip64_end: bool = False,
    zip64_extra: bytes = b"",
    narrow_too: bool = False,
    before_directory: bytes = b"",
    directory_tail: bytes = b"",
    end_gap: bytes = b"",
    central_order: Sequence[int] | None = None,
) -> Built:
    """Build an archive.  ``counted_prefix``: stored offsets include the prefix.

    ``narrow_too``: a ZIP64 archive's ordinary end record has the true values as well.
    """
    out = bytearray(prefix)
    base = 0 if counted_prefix else len(prefix)
    records = []
    extents = []
    for spec in specs:
        packed = pack(spec)
        crc = zlib.crc32(spec.data) if spec.crc is None else spec.crc
        size = len(spec.data) if spec.size is None else spec.size
        out += spec.gap
        offset = len(out)
        out += _local(spec, crc, len(packed), size) + packed
        out += _descriptor(spec, crc, len(packed), size)
        extents.append((offset, len(out)))
        stored = offset - base if spec.offset is None else spec.offset
        records.append(_central(spec, crc, len(packed), size, stored))
    out += before_directory
    directory = len(out)
    for index in central_order if central_order is not None else range(len(specs)):
        out += records[index]
    out += directory_tail
    length = len(out) - directory
    out += end_gap
    count, stored = len(specs), directory - base
    if zip64_end:
        at = len(out) - base
        out += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44 + len(zip64_extra), 45, 45, 0, 0, count,
                           count, length, stored) + zip64_extra  # fmt: skip
        out += struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    if zip64_end and not narrow_too:
        numbers = (0, 0, M16, M16, M32, M32)
    else:
        numbers = (0, 0, count & M16, count & M16, length, stored)
    out += struct.pack("<4s4H2LH", b"PK\5\6", *numbers, len(comment)) + comment + trailing
    return Built(bytes(out), extents, directory)


def _local(spec: Spec, crc: int, packed: int, size: int) -> bytes:
    name = spec.name if spec.local_name is None else spec.local_name
    flags, extra = spec.flags, spec.local_extra
    if spec.local_crc is not None:
        crc = spec.local_crc
    if spec.local_size is not None:
        size = spec.local_size
    if spec.descriptor:
        flags |= 8
        crc = packed = size = 0
    if spec.zip64:
        extra = struct.pack("<2H2Q", 1, 16, size, packed) + extra
        packed = size = M32
    return (
        struct.pack(
            "<4s3HL3L2H",
            b"PK\3\4",
            45 if spec.zip64 else 20,
            flags,
            spec.method,
            spec.date,
            crc,
            packed,
            size,
            len(name),
            len(extra),
        )
        + name
        + extra
    )


def _descriptor(spec: Spec, crc: int, packed: int, size: int) -> bytes:
    if not spec.descriptor:
        return b""
    signature = b"PK\7\x08" if spec.descriptor.startswith("sig") else b""
    form = "<LQQ" if spec.descriptor.endswith("64") else "<3L"
    return signature + struct.pack(form, crc, packed, size)


def _central(spec: Spec, crc: int, packed: int, size: int, offset: int) -> bytes:
    flags = spec.flags | (8 if spec.descriptor else 0)
    extra = spec.central_extra
    if spec.zip64:
        extra += struct.pack("<2H3Q", 1, 24, size, packed, offset)
        packed = size = offset = M32
    return (
        struct.pack(
            "<4s4HL3L5H2L",
            b"PK\1\2",
            spec.made,
            45 if spec.zip64 else 20,
            flags,
            spec.method,
            spec.date,
            crc,
            packed,
            size,
            len(spec.name),
            len(extra),
            len(spec.comment),
            spec.disk,
            spec.internal,
            spec.external,
            offset,
        )
        + spec.name
        + extra
        + spec.comment
    )


@dataclass(frozen=True)
class Seen:
    """A member as :func:`take_apart` sees it."""

    name: bytes
    record: bytes
    """Its central record with everything zeroed that a merge may correct."""
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    data: int

    def content(self, archive: bytes) -> bytes:
        packed = archive[self.data : self.data + self.packed]
        return packed if self.method == 0 else zlib.decompress(packed, -15)


def take_apart(archive: bytes, directory: int, count: int, base: int) -> list[Seen]:
    """Members of an archive whose directory lies where the caller knows it to be."""
    found = []
    at = directory
    for _ in range(count):
        fields = list(struct.unpack_from("<4s4HL3L5H2L", archive, at))
        assert fields[0] == b"PK\1\2"
        name_end = at + 46 + fields[9]
        extra_end = name_end + fields[10]
        end = extra_end + fields[11]
        extra = archive[name_end:extra_end]
        values = [fields[8], fields[7], fields[15]]
        others = b""
        while len(extra) >= 4:
            number, length = struct.unpack_from("<2H", extra)
            body, whole = extra[4 : 4 + length], extra[: 4 + length]
            extra = extra[4 + length :]
            if number != 1:
                others += whole
                continue
            for place, value in enumerate(values):
                if value == M32:
                    (values[place],) = struct.unpack_from("<Q", body)
                    body = body[8:]
        size, packed, offset = values
        offset += base
        kept = [*fields]
        for place in (2, 3, 4, 6, 7, 8, 10, 15):
            kept[place] = 0
        record = repr(kept).encode() + archive[at + 46 : name_end] + others + extra
        record += archive[extra_end:end]
        lengths = struct.unpack_from("<2H", archive, offset + 26)
        found.append(
            Seen(
                archive[at + 46 : name_end],
                record,
                fields[3],
                fields[4],
                fields[6],
                packed,
                size,
                offset,
                offset + 30 + sum(lengths),
            )
        )
        at = end
    return found


def canonical(members: dict[bytes, bytes], **changes: object) -> bytes:
    """A plain archive as another party would return it."""
    plain = Spec(b"", date=0x00210000, made=20, external=0)
    return build([replace(plain, name=n, data=d, **changes) for n, d in members.items()]).data  # type: ignore[arg-type]
