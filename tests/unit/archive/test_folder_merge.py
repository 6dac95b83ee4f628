"""A merge into a folder replaces all of its files or none, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from socketpool.archive import refusals as e
from socketpool.archive import transaction
from socketpool.archive.plan import make_plan
from socketpool.archive.policy import Policy, default_policy
from socketpool.archive.sources import check_mergeable, merge_into, open_source
from socketpool.cli.archive_commands import archive as archive_command
from tests.support.archives import canonical

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.archive.manifest import Manifest

NAMES = ("a.html", "css/b.css", "css/deep/c.css", "d.html")
MERGE = """
import os, signal, sys
from pathlib import Path
from socketpool.archive import transaction
from socketpool.archive.manifest import Manifest
from socketpool.archive.sources import merge_into
root, at = Path(sys.argv[1]), int(sys.argv[2])
step, count = getattr(transaction, sys.argv[3]), 0
def killed(*arguments):
    global count
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return step(*arguments)
setattr(transaction, sys.argv[3], killed)
manifest = Manifest.read(root.parent / "manifest")
merge_into(root, root.parent / "back.zip", manifest, backup=sys.argv[4])
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"old {name}")
    (root / "logo.png").write_bytes(b"png")
    (root / "link.html").symlink_to("a.html")
    return root


def sent_and_back(root: Path) -> Manifest:
    """What was sent of the folder; beside it lies what came back."""
    with open_source(root) as source:
        manifest = source.implode(make_plan(source, default_policy())).manifest
    manifest.write(root.parent / "manifest")
    (root.parent / "back.zip").write_bytes(canonical({n.encode(): b"new" for n in NAMES}))
    return manifest


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def after(before: dict[str, bytes]) -> dict[str, bytes]:
    return before | dict.fromkeys(NAMES, b"new")


@pytest.mark.parametrize("at", range(len(NAMES)))
@pytest.mark.parametrize("what", [OSError(28, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["_exchange", "open_at"])
def test_what_fails_on_the_way_leaves_the_folder_as_it_was(
    site: Path, monkeypatch: pytest.MonkeyPatch, step: str, what: BaseException, at: int
) -> None:
    before, manifest = snapshot(site), sent_and_back(site)
    real: Callable[..., object] = getattr(transaction, step)
    left = at

    def failing(*arguments: object) -> object:
        nonlocal left
        if left == 0:
            raise what
        left -= 1
        return real(*arguments)

    monkeypatch.setattr(transaction, step, failing)
    with pytest.raises((e.NoSpace, OSError, KeyboardInterrupt)):
        merge_into(site, site.parent / "back.zip", manifest)
    assert snapshot(site) == before
    monkeypatch.undo()
    merge_into(site, site.parent / "back.zip", manifest)
    assert snapshot(site) == after(before)


def killed_merge(site: Path, step: str, at: int, backup: str = "") -> None:
    result = subprocess.run(
        [sys.executable, "-c", MERGE, str(site), str(at), step, backup], check=False
    )
    assert result.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", range(1, len(NAMES)))
@pytest.mark.parametrize("way", ["--finish", "--roll-back"])
@pytest.mark.parametrize("backup", ["", ".bak"])
def test_a_merge_that_was_killed_is_finished_or_taken_back(
    site: Path, way: str, at: int, backup: str
) -> None:
    before = snapshot(site)
    sent_and_back(site)
    killed_merge(site, "_exchange", at, backup)
    with pytest.raises(e.MergeInterrupted, match=f"when {at} of 4 files were replaced") as caught:
        open_source(site)
    assert "archive recover" in caught.value.hint
    assert "--finish" in caught.value.hint
    assert "--roll-back" in caught.value.hint
    result = CliRunner().invoke(archive_command, ["recover", str(site), way])
    assert result.exit_code == 0, result.output
    expected = before
    if way == "--finish":
        expected = after(before) | {n + backup: before[n] for n in NAMES if backup}
    assert snapshot(site) == expected
    with open_source(site) as source:
        assert len(list(source.offers())) >= len(NAMES)


@pytest.mark.parametrize(("step", "at"), [("open_at", 0), ("open_at", 2), ("_clean_up", 0)])
def test_a_merge_killed_before_or_after_is_cleaned_up_by_the_next_run(
    site: Path, step: str, at: int
) -> None:
    before = snapshot(site)
    sent_and_back(site)
    killed_merge(site, step, at)
    with open_source(site):
        assert snapshot(site) == (after(before) if step == "_clean_up" else before)


@pytest.mark.parametrize(("way", "edited"), [("--finish", "d.html"), ("--roll-back", "a.html")])
def test_recovery_does_not_overwrite_what_was_edited_since(
    site: Path, way: str, edited: str
) -> None:
    sent_and_back(site)
    killed_merge(site, "_exchange", 2)
    (site / edited).write_text("edited since")
    found = snapshot(site)
    result = CliRunner().invoke(archive_command, ["recover", str(site), way])
    assert isinstance(result.exception, e.ArchiveChanged)
    assert snapshot(site) == found


def test_the_journal_of_somebody_else_names_nothing_outside(site: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("x")
    (site / ".socketpool-merge.jsonl").write_text(
        '{"format": 1, "transaction": "0123456789ab", "backup": ""}\n'
        '["../outside", 0, 0, 0, 0]\n{"state": "committing"}\n'
    )
    with pytest.raises(e.BadManifest):
        open_source(site)
    assert (tmp_path / "outside").read_text() == "x"


def test_a_folder_can_be_merged_into_a_new_one(site: Path, tmp_path: Path) -> None:
    before, manifest = snapshot(site), sent_and_back(site)
    (site / "a.html").chmod(0o604)
    (site / "css").chmod(0o750)
    os.utime(site / "css", (1, 1))
    report = merge_into(site, tmp_path / "back.zip", manifest, output=tmp_path / "out")
    assert snapshot(site) == before
    assert snapshot(tmp_path / "out") == after(before)
    assert (tmp_path / "out" / "link.html").readlink() == Path("a.html")
    assert stat.S_IMODE((tmp_path / "out" / "a.html").stat().st_mode) == 0o604
    assert stat.S_IMODE((tmp_path / "out" / "css").stat().st_mode) == 0o750
    assert (tmp_path / "out" / "css").stat().st_mtime == 1
    assert report.path == tmp_path / "out"
    assert len(report.changed) == 4


def test_a_failed_merge_leaves_no_new_folder(site: Path, tmp_path: Path) -> None:
    manifest = sent_and_back(site)
    (site / "a.html").write_text("edited")
    with pytest.raises(e.ArchiveChanged):
        merge_into(site, tmp_path / "back.zip", manifest, output=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.zip", "manifest", "site"]


@pytest.mark.parametrize("place", ["site", "site/sub", "nowhere/out"])
def test_a_place_that_can_not_be_is_known_before_anything_is_sent(site: Path, place: str) -> None:
    with open_source(site) as source:
        plan = make_plan(source, default_policy())
        with pytest.raises(e.CommitFailed):
            check_mergeable(site, plan, output=site.parent / place)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode bits count, as for users who aren't root."""
    real = os.access

    def access(path: str | bytes, mode: int, **options: Any) -> bool:
        found = os.stat(path, dir_fd=options.get("dir_fd"))
        return bool(found.st_mode & 0o200) and real(path, mode, **options)

    monkeypatch.setattr(os, "access", access)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("name", "mode", "said"), [("css/b.css", 0o444, "'css/b.css'"), ("css", 0o555, "folder of")]
)
def test_read_only_files_and_folders_are_known_before_anything_is_sent(
    site: Path, name: str, mode: int, said: str
) -> None:
    before, manifest = snapshot(site), sent_and_back(site)
    (site / name).chmod(mode)
    try:
        with open_source(site) as source:
            plan = make_plan(source, default_policy())
            with pytest.raises(e.CommitFailed, match=f"{said}.*read-only"):
                check_mergeable(site, plan)
        with pytest.raises(e.CommitFailed, match="read-only"):
            merge_into(site, site.parent / "back.zip", manifest)
    finally:
        (site / name).chmod(0o755)
    assert snapshot(site) == before


def test_a_disk_that_is_full_is_known_before_anything_is_sent(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(site)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*found[:4], 0, *found[5:10])))
    with open_source(site) as source:
        plan = make_plan(source, default_policy())
        with pytest.raises(e.NoSpace, match="0 bytes free"):
            check_mergeable(site, plan)


def test_an_unreadable_folder_is_no_failure_when_it_is_denied(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "private").mkdir()
    real = os.open

    def opening(path: str | bytes, flags: int, *more: int, **options: int) -> int:
        if path == b"private":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", opening)
    with open_source(site) as source:
        rules = {each.name: each.rule for each in make_plan(source, default_policy())}
        assert rules[b"private/"] == "folder that can't be read; deny: private"
        assert rules[b"a.html"] == "include: *.html"
        with pytest.raises(e.SourceUnreadable, match="'private/' can't be read"):
            make_plan(source, Policy(("*.html",), ()))


def test_backups_in_a_folder_are_numbered(site: Path) -> None:
    for content in (b"new", b"newer"):
        manifest = sent_and_back(site)
        (site.parent / "back.zip").write_bytes(canonical({b"a.html": content}))
        merge_into(site, site.parent / "back.zip", manifest, backup=".bak")
    assert (site / "a.html").read_bytes() == b"newer"
    assert (site / "a.html.bak").read_bytes() == b"old a.html"
    assert (site / "a.html.bak.1").read_bytes() == b"new"
