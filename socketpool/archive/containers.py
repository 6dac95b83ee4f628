"""Files that are not zips although one lies in them: other containers, told by their signatures.

A 7z, a tar or a disk image that stores a zip uncompressed has an end record near its end, and every
zip program finds the inner archive.  Rewriting that would move bytes which the outer file's own
records describe.  What a zip itself may have in front stays accepted: programs that unpack
themselves, scripts, text, markers of split archives, pictures, padding, and short headers.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from socketpool.archive.window import read_some

_HEAD: Final = 4096
_ZIP_STARTS: Final = (b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\7\x08", b"PK00PK", b"PK\1\2")
_PROGRAMS: Final = (
    b"MZ",
    b"\x7fELF",
    b"#!",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
)
_MAX_FAT_PARTS: Final = 30
"""A universal Mach-O has fewer parts; a Java class, of the same signature, a higher version."""

_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    # Archives and compressed files
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"RE\x7e\x5e", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b\x08", "a gzip file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (4, b"1AY&SY", "a bzip2 file"),
    (4, b"\x17\x72\x45\x38\x50\x90", "a bzip2 file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (1, b"\x2a\x4d\x18", "a Zstandard or LZ4 file"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file"),
    (0, b"\x02\x21\x4c\x18", "an LZ4 file"),
    (0, b"LZIP\1", "an lzip file"),
    (0, b"\x89LZO\0\r\n\x1a\n", "an lzop file"),
    (0, b"\xff\x06\0\0sNaPpY", "a Snappy file"),
    (0, b"LRZI\0", "an lrzip file"),
    (0, b"RZIP", "an rzip file"),
    (0, b"\x1f\x9d\x90", "a compress file"),
    (0, b"\x1f\xa0", "an LZH file"),
    (2, b"-lh", "an LHA archive"),
    (2, b"-lz", "an LHA archive"),
    (7, b"**ACE**", "an ACE archive"),
    (20, b"\xdc\xa7\xc4\xfd", "a ZOO archive"),
    (0, b"SIT!", "a StuffIt archive"),
    (0, b"StuffIt", "a StuffIt archive"),
    (0, b"ALZ\1", "an ALZ archive"),
    (0, b"EGGA", "an EGG archive"),
    (0, b"zPQ", "a ZPAQ archive"),
    (0, b"7kSt", "a ZPAQ archive"),
    (0, b"xar!", "a xar archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"070702", "a cpio archive"),
    (0, b"070707", "a cpio archive"),
    (0, b"\xc7\x71", "a cpio archive"),
    (0, b"\x71\xc7", "a cpio archive"),
    (0, b"!<arch>\ndebian-binary", "a Debian package"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"!<thin>\n", "an ar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"MSCF", "a cabinet file"),
    (0, b"ISc(", "an InstallShield cabinet"),
    (0, b"MSWIM\0\0\0", "a WIM image"),
    (0, b"MAR1", "a Mozilla archive (MAR)"),
    (16, b'{"files"', "an asar archive"),
    (0, b"\x0a\x8b\x0a\x8b", "a BIG archive"),
    (0, b"\0\0\0\x7b", "a dar archive"),
    (0, b"PAR2\0PKT", "a PAR2 file"),
    (0, b"ANDROID BACKUP\n", "an Android backup"),
    (0, b"WARC/", "a web archive (WARC)"),
    (0, b"PACK\0\0\0", "a Git pack"),
    (0, b"# v2 git bundle", "a Git bundle"),
    (0, b"# v3 git bundle", "a Git bundle"),
    # Documents and mail
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE document (old Office, MSI, MSG)"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (0, b"ITSF\3", "a compiled help file (CHM)"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "a OneNote file"),
    (0, b"\x78\x9f\x3e\x22", "a winmail.dat file (TNEF)"),
    (0, b"!BDN", "an Outlook data file"),
    (0, b"From ", "a mailbox"),
    # Databases and data
    (0, b"SQLite format 3\0", "an SQLite database"),
    (4, b"Standard Jet DB", "an Access database"),
    (4, b"Standard ACE DB", "an Access database"),
    (0, b"PGDMP", "a PostgreSQL dump"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"Obj\1", "an Avro file"),
    (0, b"bplist00", "a binary property list"),
    (0, b"\0\5\x16\0", "an AppleSingle file"),
    (0, b"\0\5\x16\7", "an AppleDouble file"),
    (128, b"DICM", "a DICOM file"),
    # Disk images and file systems
    (0x8001, b"CD001", "an ISO image"),
    (0x8801, b"CD001", "an ISO image"),
    (0x9001, b"CD001", "an ISO image"),
    (0x8001, b"BEA01", "a UDF image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"QFI\xfb", "a QCOW2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"COWD", "a VMDK disk image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VirtualBox disk image"),
    (0, b"EVF\x09\x0d\x0a\xff\0", "an EnCase image"),
    (512, b"EFI PART", "a disk image"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"sqsh", "a squashfs image"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs image"),
    (3, b"NTFS    ", "a disk image (NTFS)"),
    (3, b"EXFAT   ", "a disk image (exFAT)"),
    (54, b"FAT12", "a disk image (FAT)"),
    (54, b"FAT16", "a disk image (FAT)"),
    (82, b"FAT32", "a disk image (FAT)"),
    (0, b"XFSB", "a disk image (XFS)"),
    (0x438, b"\x53\xef", "a disk image (ext)"),
    (0x400, b"H+\0\4", "a disk image (HFS+)"),
    (0x20, b"NXSB", "a disk image (APFS)"),
    (0x10040, b"_BHRfS_M", "a disk image (Btrfs)"),
    (0, b"LUKS\xba\xbe", "an encrypted disk image (LUKS)"),
    (0, b"\x3a\xff\x26\xed", "an Android disk image"),
    (0, b"ANDROID!", "an Android boot image"),
    (0, b"hdiutil", "a disk image"),
    # Programs' own containers
    (8, b"AI\1", "an AppImage"),
    (8, b"AI\2", "an AppImage"),
    (0, b"dex\n03", "an Android program (DEX)"),
    (0, b"\0asm\1", "a WebAssembly module"),
    (0, b"RPA-", "a Ren'Py archive"),
    (0, b"IWAD", "a WAD file"),
    (0, b"PWAD", "a WAD file"),
    (0, b"BSA\0", "a BSA archive"),
    (0, b"\x34\x12\xaa\x55", "a VPK archive"),
)
_TAILS: Final = ((b"conectix", "a VHD disk image"), (b"koly", "an Apple disk image (DMG)"))
"""First bytes of a footer of 512 bytes."""

_LONG_PREFIX: Final = 512
"""Unknown binary data of this length in front of a zip is a file of its own."""
_PREFIXES: Final = (
    b"Cr24",  # a browser extension
    b"JM\1\0",  # a Java module
    b"\xca\xfe\xba\xbe",  # a universal Mach-O program
    b"\0\0\x03\xf3",  # an Amiga program
    b"\xff\xd8\xff",  # a picture, which doesn't describe what follows it
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
)
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")

_STUB_LIMIT: Final = 64 << 20
_STEP: Final = 1 << 20


def recognise(fd: int, size: int) -> str:
    """What the file is if it is a container of another kind, such as "a 7z archive"; else empty.

    Raises :class:`SourceUnreadable`.
    """
    head = read_some(fd, 0, _HEAD)
    if head.startswith(_ZIP_STARTS):
        return ""
    if _is_tar_header(head[:512]):
        return "a tar archive"
    program = head.startswith(_PROGRAMS)
    for offset, signature, words in _SIGNATURES:
        if program and offset == 0:
            continue
        end = offset + len(signature)
        found = head[offset:end] if end <= _HEAD else read_some(fd, offset, len(signature))
        if found == signature:
            return words
    for signature, words in _TAILS:
        if size >= 512 and read_some(fd, size - 512, len(signature)) == signature:
            return words
    if program:
        return ""
    return _judge_head(head)


def recognise_prefix(fd: int, first_member: int) -> str:
    """What the file is, judged by the bytes in front of the first member; empty for a zip.

    Raises :class:`SourceUnreadable`.
    """
    if not first_member:
        return ""
    head = read_some(fd, 0, min(_HEAD, first_member))
    if head.startswith(_ZIP_STARTS):
        return ""
    if head.startswith(_PROGRAMS):
        return _payload(fd, first_member)
    if first_member < _LONG_PREFIX or head.startswith(_PREFIXES):
        return ""
    if not head.strip(b"\0") or _BINARY.search(head) is None:
        return ""
    return "a file of another kind that holds one"


def _payload(fd: int, first_member: int) -> str:
    """Whether a program in front of a zip unpacks another kind of archive, which holds the zip."""
    for at in range(0, min(first_member, _STUB_LIMIT), _STEP):
        part = read_some(fd, at, min(_STEP + 32, first_member - at))
        place = -1
        while (place := part.find(b"7z\xbc\xaf\x27\x1c", place + 1)) >= 0:
            header = part[place : place + 32]
            # Programs have the signature in their code as well, but no checksum that fits.
            if len(header) == 32 and zlib.crc32(header[12:]) == _number(header[8:12]):
                return "a self-extracting 7z archive"
        place = -1
        while (place := part.find(b"Rar!\x1a\x07", place + 1)) >= 0:
            if _is_rar(part[place : place + 32]):
                return "a self-extracting RAR archive"
    return ""


def _judge_head(head: bytes) -> str:
    """What is told by more than a signature at a fixed place."""
    if b"%PDF-" in head[:1024]:
        return "a PDF document"
    if head[:4] == b"\xca\xfe\xba\xbe" and _number(head[4:8], "big") > _MAX_FAT_PARTS:
        return "a Java class"
    if head[:1] == b"\x5d" and len(head) > 13 and _is_lzma(head):
        return "an lzma file"
    if head[:2] == b"\x60\xea" and len(head) > 12 and 20 <= _number(head[2:4]) <= 2600:
        return "an ARJ archive"
    if head[510:512] == b"\x55\xaa" and all(head[at] & 0x7F == 0 for at in range(446, 510, 16)):
        return "a disk image"
    return ""


def _is_tar_header(block: bytes) -> bool:
    """Whether the block's checksum is that of a tar header; older tars have no signature."""
    field = block[148:156].strip(b" \0")
    if len(block) < 512 or not field or not all(0x30 <= each <= 0x37 for each in field):
        return False
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:]) == int(field, 8)


def _is_lzma(head: bytes) -> bool:
    dictionary = _number(head[1:5])
    unpacked = head[5:13]
    power_of_two = dictionary >= 1 << 12 and dictionary & (dictionary - 1) == 0
    return power_of_two and (unpacked == b"\xff" * 8 or unpacked[5:] == b"\0\0\0")


def _is_rar(found: bytes) -> bool:
    """Whether a RAR signature is followed by a header: its type in RAR 4, its checksum in 5."""
    if found[6:7] == b"\0":
        return found[9:10] == b"\x73" and _number(found[12:14]) >= 13
    if found[6:8] != b"\1\0" or len(found) < 16:
        return False
    length = found[12]  # the main header is always shorter than 128 bytes, so this is all of it
    return 3 <= length < 0x80 and (
        len(found) < 13 + length or zlib.crc32(found[12 : 13 + length]) == _number(found[8:12])
    )


def _number(data: bytes, order: str = "little") -> int:
    return int.from_bytes(data, "big" if order == "big" else "little")
