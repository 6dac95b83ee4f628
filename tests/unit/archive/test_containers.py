"""Files that hold a zip and are something else: refused before anything leaves, and untouched."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from socketpool.archive.refusals import NotAnArchive
from socketpool.archive.sources import open_source
from socketpool.cli.archive_commands import archive, plan
from tests.support.archives import Spec, build, canonical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INNER = build([Spec(b"index.html", b"<p>old</p>" * 20), Spec(b"logo.png", b"x", method=0)]).data


def block(size: int, *parts: tuple[int, bytes]) -> bytes:
    """A header of ``size`` bytes with ``parts`` at their offsets."""
    data = bytearray(size)
    for offset, part in parts:
        data[offset : offset + len(part)] = part
    return bytes(data)


def seven_zip(payload: bytes) -> bytes:
    """7z stores the payload and puts its own directory behind it."""
    after = b"\1\4\6\0" + bytes(40)
    start = struct.pack("<QQL", len(payload), len(after), zlib.crc32(after))
    return (
        b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<L", zlib.crc32(start)) + start + payload + after
    )


def rar4(payload: bytes) -> bytes:
    main = b"\x73\0\0\x0d\0" + bytes(6)
    crc = struct.pack("<H", zlib.crc32(main) & 0xFFFF)
    return b"Rar!\x1a\x07\0" + crc + main + b"file header" + payload + bytes(7)


def rar5(payload: bytes) -> bytes:
    main = b"\3\1\0\0"
    return b"Rar!\x1a\x07\1\0" + struct.pack("<L", zlib.crc32(main)) + main + payload + bytes(8)


def tar(form: int) -> Callable[[bytes], bytes]:
    def make(payload: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as file:
            info = tarfile.TarInfo("inner.zip")
            info.size = len(payload)
            file.addfile(info, io.BytesIO(payload))
        return out.getvalue()

    return make


def old_tar(payload: bytes) -> bytes:
    """A tar of before ustar: there is no signature, only the header's checksum."""
    data = bytearray(tar(tarfile.USTAR_FORMAT)(payload))
    data[257:265] = bytes(8)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


def stored_gzip(payload: bytes) -> bytes:
    return gzip.compress(payload, compresslevel=0)


def database(payload: bytes) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table files (body blob)")
    connection.execute("insert into files values (?)", (payload,))
    connection.commit()
    return connection.serialize()


def asar(payload: bytes) -> bytes:
    header = b'{"files":{"a.zip":{"offset":"0"}}}'
    size = len(header)
    return struct.pack("<4L", 4, size + 8, size + 4, size) + header + payload


def behind(*parts: tuple[int, bytes], size: int = 512) -> Callable[[bytes], bytes]:
    return lambda payload: block(size, *parts) + payload + bytes(512)


CONTAINERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "7z": ("a 7z archive", seven_zip),
    "RAR 4": ("a RAR archive", rar4),
    "RAR 5": ("a RAR archive", rar5),
    "tar (ustar)": ("a tar archive", tar(tarfile.USTAR_FORMAT)),
    "tar (GNU)": ("a tar archive", tar(tarfile.GNU_FORMAT)),
    "tar (pax)": ("a tar archive", tar(tarfile.PAX_FORMAT)),
    "tar without a signature": ("a tar archive", old_tar),
    "gzip": ("a gzip file", stored_gzip),
    "bzip2": ("a bzip2 file", lambda payload: bz2.compress(b"x") + payload),
    "xz": ("an xz file", lambda payload: lzma.compress(b"x") + payload),
    "lzma": (
        "an lzma file",
        lambda payload: lzma.compress(b"x", format=lzma.FORMAT_ALONE) + payload,
    ),
    "zstd": ("a Zstandard file", behind((0, b"\x28\xb5\x2f\xfd"))),
    "zstd, skippable frame first": (
        "a Zstandard or LZ4 file",
        behind((0, b"\x50\x2a\x4d\x18")),
    ),
    "lz4": ("an LZ4 file", behind((0, b"\x04\x22\x4d\x18"))),
    "compress": ("a compress file", behind((0, b"\x1f\x9d\x90"))),
    "LHA": ("an LHA archive", behind((2, b"-lh0-"))),
    "ARJ": ("an ARJ archive", behind((0, b"\x60\xea\x2b\0\x1e"))),
    "OLE2": ("an OLE document", behind((0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"))),
    "PDF": ("a PDF document", lambda payload: b"%PDF-1.7\nstream\n" + payload + b"\nendstream\n"),
    "PDF behind a blank line": ("a PDF document", lambda payload: b"\r\n%PDF-1.4\n" + payload),
    "ISO": ("an ISO image", behind((0x8001, b"CD001"), size=0x9000)),
    "ISO that starts programs": (
        "an ISO image",
        behind((0, b"MZ"), (0x8001, b"CD001"), size=0x9000),
    ),
    "SQLite": ("an SQLite database", database),
    "cpio (newc)": ("a cpio archive", lambda payload: b"070701" + b"0" * 104 + b"a\0" + payload),
    "cpio (binary)": ("a cpio archive", behind((0, b"\xc7\x71"))),
    "ar": ("an ar archive", lambda payload: b"!<arch>\na.o/            0 `\n" + payload),
    "deb": (
        "a Debian package",
        lambda payload: b"!<arch>\ndebian-binary   0  0  0  100644  4  `\n2.0\n" + payload,
    ),
    "rpm": ("an RPM package", behind((0, b"\xed\xab\xee\xdb"))),
    "cab": ("a cabinet file", behind((0, b"MSCF"))),
    "WIM": ("a WIM image", behind((0, b"MSWIM\0\0\0"))),
    "VHD": ("a VHD disk image", behind((0, b"conectix"))),
    "VHD with its footer alone": (
        "a VHD disk image",
        lambda payload: bytes(512) + payload + block(512, (0, b"conectix")),
    ),
    "DMG": (
        "an Apple disk image",
        lambda payload: b"x\xda" + payload + block(512, (0, b"koly")),
    ),
    "QCOW2": ("a QCOW2 disk image", behind((0, b"QFI\xfb\0\0\0\3"))),
    "partitioned disk": ("a disk image", behind((0, b"\xfa\x33\xc0"), (510, b"\x55\xaa"))),
    "ext4": ("a disk image (ext)", behind((0x438, b"\x53\xef"), size=4096)),
    "squashfs": ("a squashfs image", behind((0, b"hsqs"))),
    "AppImage": ("an AppImage", behind((0, b"\x7fELF\2\1\1\0AI\2"))),
    "asar": ("an asar archive", asar),
    "Java class": ("a Java class", behind((0, b"\xca\xfe\xba\xbe\0\0\0\x3d"))),
    "web archive": ("a web archive", lambda payload: b"WARC/1.0\r\n\r\n" + payload),
    "mailbox": ("a mailbox", lambda payload: b"From a@b Mon\nSubject: x\n\n" + payload),
    "self-extracting 7z": (
        "a self-extracting 7z archive",
        lambda payload: b"MZ" + bytes(2000) + seven_zip(payload),
    ),
    "self-extracting RAR 4": (
        "a self-extracting RAR archive",
        lambda payload: b"MZ" + bytes(2000) + rar4(payload),
    ),
    "self-extracting RAR 5": (
        "a self-extracting RAR archive",
        lambda payload: b"MZ" + bytes(2000) + rar5(payload),
    ),
    "unknown": (
        "a file of another kind that holds one",
        behind((0, b"GAMEDATA\0\1\2\3"), size=700),
    ),
}

ACCEPTED = {
    "Windows program": b"MZ" + bytes(range(256)) * 8,
    "Windows program that knows 7z": b"MZ" + bytes(600) + b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "Linux program": b"\x7fELF\2\1\1" + bytes(900),
    "macOS program": b"\xcf\xfa\xed\xfe" + bytes(900),
    "universal macOS program": b"\xca\xfe\xba\xbe\0\0\0\2" + bytes(range(256)) * 4,
    "script": b"#!/usr/bin/env python3\n",
    "marker of a split archive": b"PK\7\x08",
    "marker of an archive that was not split after all": b"PK00",
    "a web server's warnings": b"<br />\n<b>Warning</b>: headers already sent\n" * 20,
    "blank lines": b"\r\n\r\n",
    "Java module": b"JM\1\0",
    "picture": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4,
    "padding": bytes(4096),
    "archive": INNER,
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_of_another_kind_is_refused_and_untouched(kind: str, tmp_path: Path) -> None:
    words, make = CONTAINERS[kind]
    path, back, out = tmp_path / "file", tmp_path / "back.zip", tmp_path / "out.zip"
    data = make(INNER)
    path.write_bytes(data)
    back.write_bytes(canonical({b"index.html": b"new"}))
    for command in (
        [plan, path],
        [archive, "implode", path, "-o", out],
        [archive, "merge", path, back],
    ):
        result = CliRunner().invoke(command[0], [str(each) for each in command[1:]])  # type: ignore[arg-type]
        assert isinstance(result.exception, NotAnArchive), command
        assert result.exception.message.startswith(f"not a zip, it is {words}"), command
        assert result.exception.exit_code == 6
    assert path.read_bytes() == data
    assert not out.exists()


def test_a_container_without_a_zip_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "site.tgz"
    path.write_bytes(gzip.compress(b"no zip in here"))
    with pytest.raises(NotAnArchive, match="not a zip, it is a gzip file"):
        open_source(path)


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.parametrize("counted", [False, True])
def test_what_zips_have_in_front_is_accepted(kind: str, tmp_path: Path, *, counted: bool) -> None:
    path = tmp_path / "file.zip"
    specs = [Spec(b"index.html", b"<p>old</p>" * 20)]
    path.write_bytes(build(specs, prefix=ACCEPTED[kind], counted_prefix=counted).data)
    with open_source(path) as source:
        assert [offer[0] for offer in source.offers()] == [b"index.html"]


def test_folders_may_hold_any_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "backup.7z").write_bytes(seven_zip(INNER))
    (tmp_path / "site" / "index.html").write_bytes(b"<p>")
    with open_source(tmp_path / "site") as source:
        assert len(list(source.offers())) == 2
