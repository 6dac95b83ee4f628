"""The archives to measure on: a real site, many large members, very many tiny ones."""

from __future__ import annotations

import random
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from socketpool.archive.canonical import Canonical

SITE = Path(__file__).parents[2] / "tests" / "data" / "webflow-site.zip"
_WORDS = [f"<w{number:x}>".encode() for number in range(20_000)]


class Workload(NamedTuple):
    """An archive, what comes back, and the changed members as files for programs that want them."""

    name: str
    original: Path
    returned: Path
    files: Path
    members: int
    changed: int


class _Payload(NamedTuple):
    packed: bytes
    crc: int
    size: int


def make_workloads(folder: Path, *, quick: bool) -> list[Workload]:
    """Generate everything into ``folder``."""
    large, tiny = (1_000, 10_000) if quick else (10_000, 100_000)
    return [
        _site(folder / "site"),
        _generated(folder / "large", f"{large // 10} MB", large, 100_000, 100),
        _generated(folder / "tiny", f"{tiny:,} tiny", tiny, 100, 10),
        _generated(folder / "tiny-all", f"{tiny:,} tiny", tiny, 100, 1),
        _generated(folder / "large-tenth", f"{large // 10} MB", large, 100_000, 10),
    ]


def _generated(folder: Path, name: str, members: int, packed: int, every: int) -> Workload:
    folder.mkdir(parents=True)
    chance = random.Random(1)  # reproducible, not secret
    old = [_payload(chance, packed) for _ in range(32)]
    new = [_payload(chance, packed) for _ in range(32)]
    names = [b"d%d/page%d.html" % (number % 100, number) for number in range(members)]
    _write(folder / "original.zip", [(each, old[at % 32]) for at, each in enumerate(names)])
    changed = [(each, new[at % 32]) for at, each in enumerate(names) if at % every == 0]
    _write(folder / "returned.zip", changed)
    for each, payload in changed:
        path = folder / "files" / each.decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.decompress(payload.packed, -15))
    (folder / "all-names").write_bytes(b"\n".join(names) + b"\n")
    (folder / "names").write_bytes(b"\n".join(each for each, _ in changed) + b"\n")
    return Workload(
        name, folder / "original.zip", folder / "returned.zip", folder / "files", members,
        len(changed),
    )  # fmt: skip


def _site(folder: Path) -> Workload:
    folder.mkdir(parents=True)
    shutil.copy(SITE, folder / "original.zip")
    changed = []
    with (
        zipfile.ZipFile(SITE) as site,
        zipfile.ZipFile(folder / "returned.zip", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        members = len(site.infolist())
        for info in site.infolist():
            if info.filename.endswith((".html", ".css", ".js")):
                content = site.read(info)[:-1]
                out.writestr(info.filename, content)
                path = folder / "files" / info.filename
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                changed.append(info.filename)
    (folder / "all-names").write_text("\n".join(changed) + "\n")
    (folder / "names").write_text("\n".join(changed) + "\n")
    return Workload(
        "site, 2.6 MB", folder / "original.zip", folder / "returned.zip", folder / "files", members,
        len(changed),
    )  # fmt: skip


def _payload(chance: random.Random, packed: int) -> _Payload:
    """Text that deflates to about ``packed`` bytes."""
    content = b"".join(chance.choices(_WORDS, k=max(1, packed // 2 - packed // 50)))
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return _Payload(
        deflater.compress(content) + deflater.flush(), zlib.crc32(content), len(content)
    )


def _write(path: Path, members: list[tuple[bytes, _Payload]]) -> None:
    layout = Canonical()
    with path.open("wb") as out:
        for name, (packed, crc, size) in members:
            header = layout.add(name, utf8=False, method=8, crc=crc, packed=len(packed), size=size)
            out.write(header + packed)
        out.write(layout.end())
