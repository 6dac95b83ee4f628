"""The records of a zip file as bytes: their layouts, flags, and the ZIP64 extra field."""

from __future__ import annotations

import errno
from struct import Struct
from typing import Final, NamedTuple

M16: Final = 0xFFFF
M32: Final = 0xFFFFFFFF
"""The values that say: the true one is in the ZIP64 extra field or record."""

LOCAL: Final = Struct("<4s3HL3L2H")
CENTRAL: Final = Struct("<4s4HL3L5H2L")
END: Final = Struct("<4s4H2LH")
END64: Final = Struct("<4sQ2H2L4Q")
LOCATOR: Final = Struct("<4sLQL")
FIELD: Final = Struct("<2H")

LOCAL_SIGNATURE: Final = b"PK\3\4"
CENTRAL_SIGNATURE: Final = b"PK\1\2"
END_SIGNATURE: Final = b"PK\5\6"
END64_SIGNATURE: Final = b"PK\6\6"
LOCATOR_SIGNATURE: Final = b"PK\6\7"
DESCRIPTOR_SIGNATURE: Final = b"PK\7\x08"
SIGNATURE_SIGNATURE: Final = b"PK\5\5"

STORED: Final = 0
DEFLATED: Final = 8

ENCRYPTED: Final = 0x2041
"""Any of the flags for encryption: traditional, strong, or of the directory itself."""
PATCHED: Final = 0x20
DESCRIPTOR: Final = 0x8
DEFLATE_LEVEL: Final = 0x6
UTF8: Final = 0x800

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that mean: no room."""

ZIP64_ID: Final = 1
UNICODE_PATH_ID: Final = 0x7075
FIRST_DATE: Final = 0x00210000
"""1980-01-01, the first date the format knows."""


class CentralFields(NamedTuple):
    """The fixed part of a central directory record."""

    signature: bytes
    made: int
    needed: int
    flags: int
    method: int
    date: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal: int
    external: int
    offset: int


def find_field(extra: bytes | bytearray, wanted: int) -> tuple[int, int] | None:
    """Where the body of the first extra field ``wanted`` begins and ends.

    Bytes at the end that are no field (some tools pad with zeros) are ignored.
    """
    at = 0
    while at + 4 <= len(extra):
        field, length = FIELD.unpack_from(extra, at)
        at += 4
        if at + length > len(extra):
            return None
        if field == wanted:
            return at, at + length
        at += length
    return None


def with_zip64(extra: bytes, body: bytes) -> bytes:
    """``extra`` with the ZIP64 field's body replaced where it stands, or put first."""
    found = find_field(extra, ZIP64_ID)
    field = FIELD.pack(ZIP64_ID, len(body)) + body
    if found is None:
        return field + extra
    start, end = found
    return extra[: start - 4] + field + extra[end:]


def zip64_end(count: int, directory_size: int, directory_offset: int, position: int) -> bytes:
    """The ZIP64 end record and its locator, for a record that stands at ``position``."""
    return END64.pack(
        END64_SIGNATURE, 44, 45, 45, 0, 0, count, count, directory_size, directory_offset
    ) + LOCATOR.pack(LOCATOR_SIGNATURE, 0, position, 1)


def record_length(directory: bytes | bytearray, at: int) -> int:
    """The length of the central directory record at ``at``."""
    lengths = directory[at + 28 : at + 34]
    low = 46 + lengths[0] + lengths[2] + lengths[4]
    return low + ((lengths[1] + lengths[3] + lengths[5]) << 8)
