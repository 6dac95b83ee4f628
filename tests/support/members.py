"""What the main job must have left as it was, member by member and byte by byte."""

from __future__ import annotations

import zipfile
from pathlib import Path

PROCESSED = {".html", ".css", ".js"}


def entries(archive: Path) -> dict[str, tuple[zipfile.ZipInfo, bytes]]:
    """Every member with its contents."""
    with zipfile.ZipFile(archive) as file:
        return {info.filename: (info, file.read(info)) for info in file.infolist()}


def raw_entries(archive: Path) -> dict[str, bytes]:
    """Every member's local entry, byte for byte, up to where the next begins."""
    with zipfile.ZipFile(archive) as file:
        infos = sorted(file.infolist(), key=lambda info: info.header_offset)
        ends = [info.header_offset for info in infos[1:]] + [file.start_dir]
    data = archive.read_bytes()
    return {
        info.filename: data[info.header_offset : end] for info, end in zip(infos, ends, strict=True)
    }


def assert_processed(original: Path, archive: Path) -> set[str]:
    """Only members that the vendor works on have changed; returns their names."""
    before, after = entries(original), entries(archive)
    assert list(after) == list(before)
    changed = {n for n in before if before[n][1] != after[n][1]}
    assert changed
    assert {Path(n).suffix for n in changed} <= PROCESSED
    for member, (info, _) in before.items():
        now = after[member][0]
        for kept in ("date_time", "extra", "comment", "external_attr", "create_system"):
            assert getattr(now, kept) == getattr(info, kept), (member, kept)
    raw_before, raw_after = raw_entries(original), raw_entries(archive)
    for member in set(before) - changed:
        assert raw_after[member] == raw_before[member], member
    return changed
