"""Stand-in until the engine is merged."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SEND = (".html", ".htm", ".css", ".js", ".ts", ".json", ".md", ".txt")


def implode(path: Path, out: Path) -> tuple[list[str], int]:
    sent = []
    kept = 0
    with zipfile.ZipFile(path) as src, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as dst:
        for i in src.infolist():
            if i.filename.lower().endswith(SEND):
                dst.writestr(i.filename, src.read(i))
                sent.append(i.filename)
            else:
                kept += 1
    return sent, kept


def merge(path: Path, returned: Path, sent: list[str]) -> tuple[int, int]:
    tmp = path.with_suffix(".tmp")
    with (
        zipfile.ZipFile(path) as a,
        zipfile.ZipFile(returned) as b,
        zipfile.ZipFile(tmp, "w", zipfile.ZIP_DEFLATED) as o,
    ):
        new = {i.filename: b.read(i) for i in b.infolist()}
        for i in a.infolist():
            o.writestr(i, new.get(i.filename, a.read(i)))
    tmp.replace(path)
    return len(new), 0
