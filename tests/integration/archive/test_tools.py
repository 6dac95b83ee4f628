"""Archives as other programs make them, and other programs on what the engine makes of them."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.archives import canonical
from tests.unit.archive.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

NEW = b"<p>new</p>" * 99

MAKERS = {
    "zip": "zip -qr $OUT .",
    "zip with a comment": "echo hello | zip -qrz $OUT .",
    "zip to a pipe": "zip -qr - . | cat > $OUT",
    "zip from a pipe": "zip -qr $OUT . && zip -q $OUT - < a.html",
    "zip with descriptors": "zip -qr -fd $OUT .",
    "zip forced to ZIP64": "zip -qr -fz $OUT .",
    "zip that stores": "zip -qr0 $OUT .",
    "zip with a prefix": "zip -qr t.zip . && (echo '#!/bin/sh'; cat t.zip) > $OUT && rm t.zip",
    "zip with a prefix, adjusted": (
        "zip -qr t.zip . && (echo '#!/bin/sh'; cat t.zip) > $OUT && rm t.zip && zip -qA $OUT"
    ),
    "zip with links": "ln -s a.html l.html && zip -qry $OUT .",
    "zip with encryption": "zip -qr $OUT . && echo x > e.html && zip -q -P secret $OUT e.html",
    "zip after deletion": "zip -qr $OUT . && zip -qd $OUT '*.txt'",
    "7z": "7z a -tzip -bso0 -bsp0 $OUT .",
    "7z with other methods": (
        "7z a -tzip -bso0 -bsp0 $OUT *.html && 7z a -tzip -mm=LZMA -bso0 -bsp0 $OUT *.txt"
    ),
    "7z with AES": "7z a -tzip -bso0 -bsp0 $OUT *.html && 7z a -tzip -psecret -mem=AES256 "
    "-bso0 -bsp0 $OUT *.txt",
    "bsdtar": "bsdtar --format zip -cf $OUT .",
    "python": "python3 -m zipfile -c $OUT a.html b.html sub t.txt",
}


@pytest.mark.parametrize("maker", MAKERS)
def test_made_by(maker: str, tmp_path: Path) -> None:
    script = MAKERS[maker]
    if shutil.which(script.split(maxsplit=1)[0]) is None and not script.startswith(("echo", "ln")):
        pytest.skip(f"{script.split()[0]} is not installed")
    files, work, made = tmp_path / "files", tmp_path / "work", tmp_path / "made.zip"
    (files / "sub").mkdir(parents=True)
    work.mkdir()
    chance = random.Random(5)
    for name in ("a.html", "b.html", "sub/c.html", "t.txt", "ü.html"):
        text = "".join(chance.choices("<html> \n", k=5_000))
        (files / name).write_text(text)
    environment = {"OUT": str(made), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    command = ["sh", "-ec", script]
    if subprocess.run(command, cwd=files, env=environment, check=False).returncode:
        pytest.skip("the program fails on this machine")
    data = made.read_bytes()
    engine = Engine(work)
    sent, manifest = engine.implode(data, verify=True)
    assert zipfile.ZipFile(io.BytesIO(sent)).testzip() is None
    names = [each.name for each in manifest]
    pages = [name for name in names if name.endswith((b"a.html", b"c.html"))]
    assert len(pages) >= 1
    assert engine.merge_with(data, sent, manifest) == data
    before = _verdicts(engine.original)
    merged = engine.merge_with(data, canonical(dict.fromkeys(pages, NEW)), manifest)
    assert _verdicts(engine.original) == before
    _check_with_zipfile(data, merged, set(pages))


def _check_with_zipfile(before: bytes, after: bytes, changed: set[bytes]) -> None:
    with (
        zipfile.ZipFile(io.BytesIO(before)) as old,
        zipfile.ZipFile(io.BytesIO(after)) as new,
    ):
        assert new.comment == old.comment
        for was, now in zip(old.infolist(), new.infolist(), strict=True):
            assert (was.filename, was.date_time, was.external_attr, was.comment) == (
                now.filename,
                now.date_time,
                now.external_attr,
                now.comment,
            )
            if now.flag_bits & 1 or now.compress_type not in (0, 8, 12, 14):
                continue
            content = NEW if now.orig_filename.encode() in changed else old.read(was)
            assert new.read(now) == content


def _verdicts(path: Path) -> list[int]:
    """What programs say about an archive; some can't read some, before as after."""
    tests = (["7z", "t", "-psecret", str(path)], ["unzip", "-P", "secret", "-tq", str(path)])
    return [
        subprocess.run(command, capture_output=True, check=False).returncode
        for command in tests
        if shutil.which(str(command[0]))
    ]
