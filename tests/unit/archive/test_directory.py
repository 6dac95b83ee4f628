"""A directory is treated like a zip."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from socketpool.archive import refusals as e
from socketpool.archive.manifest import Manifest
from socketpool.archive.plan import make_plan
from socketpool.archive.policy import default_policy
from socketpool.archive.sources import merge_into, open_source
from tests.support.archives import Spec, build, canonical
from tests.unit.archive.engine import stream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "css").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "index.html").write_text("<p>old</p>" * 50)
    (root / "empty.html").write_text("")
    (root / "css" / "ü.css").write_text("a{}")
    (root / "logo.png").write_bytes(b"canary-png")
    (root / ".git" / "a.html").write_text("canary-git")
    (root / "server.key").write_text("canary-key")
    (tmp_path / "outside.html").write_text("canary-outside")
    (root / "link.html").symlink_to("../outside.html")
    (root / "linked").symlink_to("..")
    os.mkfifo(root / "pipe.html")
    return root


def imploded(root: Path) -> tuple[bytes, Manifest]:
    with open_source(root) as source:
        made = source.implode(make_plan(source, default_policy()))
        data = stream(made)
        assert len(data) == made.size
        assert [each.name for each in made.digests()] == [each.name for each in made.manifest]
        return data, Manifest.from_json(made.manifest.to_json())


def merged(root: Path, members: dict[bytes, bytes] | bytes, **options: object) -> object:
    _, manifest = imploded(root)
    returned = root.parent / "returned.zip"
    returned.write_bytes(members if isinstance(members, bytes) else canonical(members))
    return merge_into(root, returned, manifest, **options)  # type: ignore[arg-type]


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_only_allowed_files_leave(site: Path) -> None:
    data, manifest = imploded(site)
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() is None
        assert sorted(opened.namelist()) == ["css/ü.css", "empty.html", "index.html"]
    assert b"canary" not in data
    assert manifest.kind == "directory"


def test_the_plan_says_why(site: Path) -> None:
    with open_source(site) as source:
        rules = {each.name: each.rule for each in make_plan(source, default_policy())}
    assert rules[b"link.html"] == rules[b"linked"] == "symbolic link"
    assert rules[b"pipe.html"] == "special file"
    assert rules[b".git/a.html"] == "deny: .git"
    assert rules[b"logo.png"] == "not included"


def test_changed_files_are_replaced_and_nothing_else_is_touched(site: Path) -> None:
    before = snapshot(site)
    times = {path: path.lstat().st_mtime_ns for path in site.rglob("*.*")}
    (site / "index.html").chmod(0o604)
    report = merged(site, {b"index.html": b"new", b"css/\xc3\xbc.css": b"a{}"})
    assert snapshot(site) == before | {"index.html": b"new"}
    assert stat.S_IMODE((site / "index.html").stat().st_mode) == 0o604
    changed = {path for path, then in times.items() if path.lstat().st_mtime_ns != then}
    assert changed == {site / "index.html"}
    assert [change.name for change in report.changed] == [b"index.html"]  # type: ignore[attr-defined]
    assert list(report.unchanged) == [b"css/\xc3\xbc.css"]  # type: ignore[attr-defined]


def test_backup_keeps_the_old_file(site: Path) -> None:
    merged(site, {b"index.html": b"new"}, backup="~")
    assert (site / "index.html~").read_text() == "<p>old</p>" * 50


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (canonical({b"../outside.html": b"new"}), e.NeverSent),
        (canonical({b"link.html": b"new"}), e.NeverSent),
        (canonical({b"server.key": b"new"}), e.NeverSent),
        (canonical({b"index.html": b"new", b"empty.html": b"x", b"zz": b"x"}), e.NeverSent),
        (
            build([Spec(b"empty.html", b"new"), Spec(b"index.html", b"new", crc=1)]).data,
            e.LyingMember,
        ),
    ],
)
def test_refusals_touch_nothing(returned: bytes, kind: type[Exception], site: Path) -> None:
    before = snapshot(site)
    with pytest.raises(kind):
        merged(site, returned)
    assert snapshot(site) == before


def test_a_file_that_changed_meanwhile_is_refused(site: Path) -> None:
    _, manifest = imploded(site)
    (site / "index.html").write_text("edited")
    returned = site.parent / "returned.zip"
    returned.write_bytes(canonical({b"index.html": b"new"}))
    with pytest.raises(e.ArchiveChanged, match=r"index\.html"):
        merge_into(site, returned, manifest)
    assert (site / "index.html").read_text() == "edited"


@pytest.mark.parametrize("at", ["file", "folder"])
def test_a_link_put_in_the_way_is_not_followed(at: str, site: Path) -> None:
    _, manifest = imploded(site)
    outside = site.parent / "outside"
    outside.mkdir()
    (outside / "ü.css").write_text("a{}")
    if at == "file":
        (site / "css" / "ü.css").unlink()
        (site / "css" / "ü.css").symlink_to(outside / "ü.css")
    else:
        (site / "css" / "ü.css").unlink()
        (site / "css").rmdir()
        (site / "css").symlink_to(outside)
    returned = site.parent / "returned.zip"
    returned.write_bytes(canonical({"css/ü.css".encode(): b"new"}))
    with pytest.raises(e.SourceUnreadable):
        merge_into(site, returned, manifest)
    assert (outside / "ü.css").read_text() == "a{}"


def test_manifests_fit_one_kind_only(site: Path) -> None:
    _, manifest = imploded(site)
    archive = site.parent / "a.zip"
    archive.write_bytes(build([Spec(b"index.html", b"x")]).data)
    with pytest.raises(e.BadManifest):
        merge_into(archive, archive, manifest)
