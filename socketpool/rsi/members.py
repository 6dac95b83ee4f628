"""Members of an uploaded archive as files of the workspace, and back into an archive."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from socketpool.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MEMBERS = 200_000
_CHUNK = 256 << 10


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A member on disk, and what it was like when it arrived."""

    path: Path
    size: int
    crc: int


def unpack(archive: Path, folder: Path, max_bytes: int) -> dict[str, Unpacked]:
    """Each member as a file of ``folder``; raises :class:`ArchiveError`."""
    folder.mkdir(mode=0o700)
    unpacked: dict[str, Unpacked] = {}
    try:
        with zipfile.ZipFile(archive) as source:
            infos = source.infolist()
            if len(infos) > MAX_MEMBERS or sum(i.file_size for i in infos) > max_bytes:
                raise ArchiveError("the uploaded archive is larger than the service allows")
            for number, info in enumerate(infos):
                if info.filename in unpacked:
                    raise ArchiveError(f"the uploaded archive holds {info.filename!r} twice")
                path = folder / f"{number:06d}{_suffix(info.filename)}"
                with source.open(info) as member, path.open("xb") as out:
                    shutil.copyfileobj(member, out, _CHUNK)
                unpacked[info.filename] = Unpacked(path, info.file_size, info.CRC)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        raise ArchiveError(f"the uploaded archive is damaged: {error}") from None
    return unpacked


def pack_changed(unpacked: Mapping[str, Unpacked], target: Path) -> int:
    """Write the members that changed as an archive at ``target``; returns their number."""
    part = target.with_name(target.name + ".part")
    changed = 0
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as out:
        for name, member in unpacked.items():
            if not member.path.is_file() or _is_unchanged(member):
                continue
            out.write(member.path, name)
            changed += 1
    part.replace(target)
    return changed


def _is_unchanged(member: Unpacked) -> bool:
    if member.path.stat().st_size != member.size:
        return False
    crc = 0
    with member.path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.crc


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 12 else ""
