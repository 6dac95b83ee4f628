"""Offsets and sizes on both sides of 4 GiB, in sparse files."""

from __future__ import annotations

import os
import struct
import subprocess
import zipfile
from array import array
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.implode import implode_zip
from socketpool.archive.merge import merge
from socketpool.archive.reader import Archive
from socketpool.system.filerange import FileRange
from tests.support.archives import UNIX_FILE, canonical

if TYPE_CHECKING:
    from pathlib import Path

GIB4 = 1 << 32
M32 = 0xFFFFFFFF


def local(name: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(
        "<4s3HL3L2H", b"PK\3\4", 20, 0, 0, 0x5A215A21, zlib.crc32(data), len(data), len(data),
        len(name), 0,
    ) + name + data  # fmt: skip


def central(name: bytes, data: bytes, offset: int) -> bytes:
    import zlib

    extra = b""
    if offset >= M32:
        extra, offset = struct.pack("<2HQ", 1, 8, offset), M32
    return struct.pack(
        "<4s4HL3L5H2L", b"PK\1\2", 0x31E, 45 if extra else 20, 0, 0, 0x5A215A21, zlib.crc32(data),
        len(data), len(data), len(name), len(extra), 0, 0, 0, UNIX_FILE, offset,
    ) + name + extra  # fmt: skip


def sparse_archive(path: Path, second_at: int) -> None:
    """Two small members with a hole between them that ends at ``second_at``."""
    members = [(b"a.html", b"first", 0), (b"b.html", b"second", second_at)]
    with path.open("wb") as out:
        for name, data, offset in members:
            out.seek(offset)
            out.write(local(name, data))
        directory = out.tell()
        for name, data, offset in members:
            out.write(central(name, data, offset))
        size = out.tell() - directory
        end = out.tell()
        if directory >= M32:
            out.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, size, directory))
            out.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        out.write(
            struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, size, min(directory, M32), 0)
        )  # fmt: skip


@pytest.mark.parametrize(
    ("second_at", "grows"),
    [
        (GIB4 - 100, 0),  # the directory crosses
        (GIB4 - 5_000, 9_000),  # member and directory cross because the first one grew
        (GIB4 - 1 - 2_000, 2_000),  # the member's offset becomes the marker itself
        (GIB4 + 100, 0),  # both are beyond already
        (GIB4 + 100, -3),  # and stay there although the first one shrank
        (GIB4 + 1, -4),  # or come back below
    ],
)
def test_around_four_gib(second_at: int, grows: int, tmp_path: Path) -> None:
    original, returned, output = (tmp_path / name for name in ("a.zip", "r.zip", "o.zip"))
    sparse_archive(original, second_at)
    with Archive.open(original) as archive:
        imploded = implode_zip(archive, array("L", (0, 1)))
        sent = b"".join(each for each in imploded.segments() if not isinstance(each, FileRange))
        assert len(sent) == imploded.size < 1_000
    new = b"x" * (len(b"first") + grows) if grows else b"FIRST"
    returned.write_bytes(canonical({b"a.html": new, b"b.html": b"second"}, method=0))
    merge(original, returned, imploded.manifest, output=output)
    assert output.stat().st_blocks * 512 < 1 << 22, "the hole must stay a hole"
    assert output.stat().st_size >= original.stat().st_size + grows
    with zipfile.ZipFile(output) as opened:
        assert opened.read("a.html") == new
        assert opened.read("b.html") == b"second"
        assert opened.getinfo("b.html").header_offset == second_at + grows
    with Archive.open(output) as archive:
        again = implode_zip(archive, array("L", (0, 1)), verify=True)
    returned.write_bytes(canonical({b"a.html": b"first"}, method=0))
    merge(output, returned, again.manifest)
    with zipfile.ZipFile(output) as opened:
        assert opened.testzip() is None
    if _has_unzip():
        subprocess.run(["unzip", "-tq", output], check=True, capture_output=True)


def _has_unzip() -> bool:
    return any(os.access(f"{folder}/unzip", os.X_OK) for folder in os.get_exec_path())
