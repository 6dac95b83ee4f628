"""The original's place: what it keeps, what it refuses, and what is left behind."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from socketpool.archive import commit
from socketpool.archive import refusals as e
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.archive.engine import Engine

DATA = build([Spec(b"a.html", b"old"), Spec(b"b.png", b"image" * 99)]).data
NEW = {b"a.html": b"brand new"}


def test_mode_times_and_attributes_stay(engine: Engine) -> None:
    _, manifest = engine.implode(DATA)
    engine.original.chmod(0o640)
    try:
        os.setxattr(engine.original, "user.origin", b"here")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    merged = engine.merge_with(DATA, NEW, manifest)
    assert merged != DATA
    assert stat.S_IMODE(engine.original.stat().st_mode) == 0o640
    assert os.getxattr(engine.original, "user.origin") == b"here"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(engine: Engine) -> None:
    _, manifest = engine.implode(DATA)
    os.chown(engine.original, 1234, 4321)
    engine.merge_with(DATA, NEW, manifest)
    found = engine.original.stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_a_symlink_is_followed(engine: Engine, tmp_path: Path) -> None:
    from socketpool.archive.merge import merge

    _, manifest = engine.implode(DATA)
    engine.merge_with(DATA, {}, manifest)
    link = tmp_path / "deep" / "link.zip"
    link.parent.mkdir()
    link.symlink_to("../original.zip")
    from tests.support.archives import canonical

    engine.returned.write_bytes(canonical(NEW))
    report = merge(link, engine.returned, manifest)
    assert link.is_symlink()
    assert report.path == engine.original
    assert engine.original.read_bytes() != DATA
    assert list(link.parent.iterdir()) == [link]


def test_backup_keeps_the_old_file(engine: Engine) -> None:
    engine.merge(DATA, NEW, backup=".bak")
    assert engine.report is not None
    assert engine.report.backup == engine.folder / "original.zip.bak"
    assert engine.report.backup.read_bytes() == DATA
    again = engine.merge(DATA, NEW, backup=".bak")
    assert engine.report.backup.read_bytes() == DATA
    assert again != DATA


@pytest.mark.parametrize("suffix", ["/x", "../x", "a\0b"])
def test_a_backup_stays_beside(suffix: str, engine: Engine) -> None:
    with pytest.raises(e.CommitFailed):
        engine.merge(DATA, NEW, backup=suffix)


def test_output_leaves_the_original_alone(engine: Engine) -> None:
    output = engine.folder / "out.zip"
    assert engine.merge(DATA, NEW, output=output) == DATA
    assert output.read_bytes() != DATA
    assert not list(engine.folder.glob(".*"))


def test_output_may_be_the_original(engine: Engine) -> None:
    assert engine.merge(DATA, NEW, output=engine.original) != DATA


@pytest.mark.parametrize("how", ["content", "grown", "touched", "replaced"])
def test_a_changed_original_is_refused(how: str, engine: Engine) -> None:
    _, manifest = engine.implode(DATA)
    changed = DATA
    if how == "content":
        changed = build([Spec(b"a.html", b"odd"), Spec(b"b.png", b"image" * 99)]).data
    elif how == "grown":
        changed = DATA + b"\0"
    if how == "touched":
        os.utime(engine.original, ns=(0, 0))
    else:
        engine.original.write_bytes(changed)
        if how == "replaced":
            other = engine.folder / "other"
            other.write_bytes(build([Spec(b"z.html", b"z")]).data)
            other.replace(engine.original)
            changed = engine.original.read_bytes()
    with pytest.raises(e.ArchiveChanged):
        engine.merge_with(changed, NEW, manifest)


def test_an_archive_that_was_copied_is_the_same(engine: Engine) -> None:
    _, manifest = engine.implode(DATA)
    copy = engine.folder / "copy"
    copy.write_bytes(DATA)
    copy.replace(engine.original)
    assert engine.merge_with(DATA, NEW, manifest) != DATA


def test_a_change_during_the_merge_is_noticed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from socketpool.archive import merge as module
    from socketpool.archive import readback

    _, manifest = engine.implode(DATA)
    honest = readback.read_back

    def meddle(*args: object, **options: object) -> None:
        honest(*args, **options)  # type: ignore[arg-type]
        os.utime(engine.original, ns=(0, 0))

    monkeypatch.setattr(module, "read_back", meddle)
    with pytest.raises(e.ArchiveChanged):
        engine.merge_with(DATA, NEW, manifest)


def test_a_second_merge_waits_its_turn(engine: Engine) -> None:
    _, manifest = engine.implode(DATA)
    with engine.original.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(e.ArchiveBusy):
            engine.merge_with(DATA, NEW, manifest)


def test_what_does_not_read_back_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, manifest = engine.implode(DATA)
    honest = commit.Replacement.copy

    def bad_disk(self: commit.Replacement, archive: object, offset: int, length: int) -> None:
        honest(self, archive, offset, length)  # type: ignore[arg-type]
        if self._buffer:
            self._buffer[-1] ^= 1

    monkeypatch.setattr(commit.Replacement, "copy", bad_disk)
    with pytest.raises((e.CommitFailed, e.LyingMember, e.DamagedArchive)):
        engine.merge_with(DATA, NEW, manifest)


def test_stale_temporary_files_are_swept_and_others_are_not(engine: Engine) -> None:
    stale = engine.folder / ".original.zip.socketpool-0123456789ab.tmp"
    alive = engine.folder / ".original.zip.socketpool-ba9876543210.tmp"
    others = [engine.folder / ".original.zip.tmp", engine.folder / ".x.socketpool-12.tmp"]
    for path in (stale, alive, *others):
        path.write_bytes(b"x")
    with alive.open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        engine.merge(DATA, NEW)
    assert not stale.exists()
    assert all(path.exists() for path in (alive, *others))


FILL = """
import resource, sys
from pathlib import Path
from socketpool.archive.refusals import NoSpace
from socketpool.archive.manifest import Manifest
from socketpool.archive.merge import merge
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
try:
    merge(Path(sys.argv[1]), Path(sys.argv[2]), Manifest.read(Path(sys.argv[3])))
except NoSpace as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize("room", [0, 100, 5_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(room: int, engine: Engine) -> None:
    data = build([Spec(b"a.html", b"old"), Spec(b"b.png", os.urandom(200_000), method=0)]).data
    _, manifest = engine.implode(data)
    from tests.support.archives import canonical

    engine.returned.write_bytes(canonical(NEW))
    path = engine.folder / "manifest"
    manifest.write(path)
    before = sorted(engine.folder.iterdir())
    command: list[str | Path] = [
        sys.executable,
        "-c",
        FILL,
        engine.original,
        engine.returned,
        path,
        str(room),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert "no room" in done.stdout
    assert engine.original.read_bytes() == data
    assert sorted(engine.folder.iterdir()) == before


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    from socketpool.archive.reader import Archive

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(e.NotAnArchive):
        Archive.open(pipe)
    with pytest.raises(e.NotAnArchive):
        Archive.open(tmp_path)
    with pytest.raises(e.SourceUnreadable):
        Archive.open(tmp_path / "none")


@pytest.mark.parametrize(
    "name", [b"META-INF/APP.SF", b"meta-inf/app.rsa", b"META-INF/X.EC", b"_xmlsignatures/sig1.xml"]
)
def test_signed_archives_are_refused(name: bytes, engine: Engine) -> None:
    data = build([Spec(b"a.html", b"old"), Spec(name, b"signature")]).data
    with pytest.raises(e.SignedArchive, match="signature"):
        engine.merge(data, NEW)
    assert engine.merge(data, NEW, allow_signed=True) != data
    assert engine.merge(data, {b"a.html": b"old"}) == data


def test_signing_blocks_and_signed_directories_are_refused(engine: Engine) -> None:
    block = build([Spec(b"a.html", b"old")], before_directory=bytes(8) + b"APK Sig Block 42").data
    tail = build([Spec(b"a.html", b"old")], directory_tail=b"PK\5\5\3\0sig").data
    for data in (block, tail):
        with pytest.raises(e.SignedArchive):
            engine.merge(data, NEW)
    assert b"PK\5\5\3\0sig" in engine.merge(tail, NEW, allow_signed=True)


def test_a_manifest_with_names_is_not_signed(engine: Engine) -> None:
    data = build([Spec(b"a.html", b"old"), Spec(b"META-INF/MANIFEST.MF", b"x")]).data
    assert engine.merge(data, NEW) != data


def test_a_backup_never_overwrites_an_earlier_one(engine: Engine) -> None:
    first = build([Spec(b"a.html", b"first")]).data
    second = engine.merge(first, {b"a.html": b"second"}, backup=".bak")
    assert engine.report is not None
    assert engine.report.backup == engine.folder / "original.zip.bak"
    third = engine.merge(second, {b"a.html": b"third"}, backup=".bak")
    assert engine.report.backup == engine.folder / "original.zip.bak.1"
    engine.merge(third, {b"a.html": b"fourth"}, backup=".bak")
    assert (engine.folder / "original.zip.bak").read_bytes() == first
    assert (engine.folder / "original.zip.bak.1").read_bytes() == second
    assert (engine.folder / "original.zip.bak.2").read_bytes() == third
