"""The commands, as a user types them; and the receipt."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from socketpool.archive import refusals as e
from socketpool.archive.plan import make_plan
from socketpool.archive.policy import default_policy
from socketpool.archive.receipt import build_receipt, write_receipt
from socketpool.archive.sources import merge_into, open_source
from socketpool.cli.archive_commands import archive, plan
from socketpool.errors import ConfigError, UsageError
from tests.support.archives import Spec, build, canonical

if TYPE_CHECKING:
    from pathlib import Path

SITE = [
    Spec(b"a.html", b"old"),
    Spec(b"[red]b.html", b"markup"),
    Spec(b"esc\x1b]0;title\x07.html", b"x"),
    Spec(b"logo.png", b"image"),
    Spec(b"server.key", b"key"),
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.zip"
    path.write_bytes(build(SITE).data)
    return path


def run(command: object, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(each) for each in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_plan_shows_rules_and_escapes_names(site: Path) -> None:
    output = run(plan, site)
    assert "'[red]b.html'" in output
    assert "\x1b" not in output
    assert "deny: *.key" in output
    assert "unsafe name" in output
    assert "2 members (9 bytes) would leave, 3 (9 bytes) stay." in output


def test_plan_as_json(site: Path) -> None:
    found = json.loads(run(plan, site, "--json"))
    assert found["send"]["members"] == 2
    assert [each["send"] for each in found["members"]] == [True, True, False, False, False]
    assert found["members"][4]["rule"] == "deny: *.key"


def test_the_whole_way_by_hand(site: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out.zip", tmp_path / "back.zip"
    run(archive, "implode", site, "-o", out)
    assert sorted(zipfile.ZipFile(out).namelist()) == ["[red]b.html", "a.html"]
    back.write_bytes(canonical({b"a.html": b"new", b"[red]b.html": b"markup"}))
    manifest = tmp_path / "out.zip.manifest.jsonl"
    merged = tmp_path / "merged.zip"
    output = run(archive, "merge", site, back, "-o", merged, "--manifest", manifest)
    assert "1 changed, 1 unchanged, 0 not returned" in output
    with zipfile.ZipFile(merged) as opened:
        assert opened.read("a.html") == b"new"
        assert opened.read("server.key") == b"key"
    run(archive, "merge", site, back, "--backup", ".bak")
    assert site.read_bytes() == merged.read_bytes()
    assert (tmp_path / "site.zip.bak").read_bytes() == build(SITE).data


def test_without_a_manifest_the_policy_binds_what_comes_back(site: Path, tmp_path: Path) -> None:
    back = tmp_path / "back.zip"
    back.write_bytes(canonical({b"server.key": b"new"}))
    with pytest.raises(e.NeverSent, match=r"'server\.key'"):
        run(archive, "merge", site, back)
    rules = tmp_path / "rules.yml"
    rules.write_text("include: ['*.key']\ndefaults: none")
    run(archive, "merge", site, back, "--policy", rules)


def test_mistakes(site: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(archive, "implode", site, "-o", site)
    with pytest.raises(ConfigError):
        run(plan, site, "--policy", tmp_path / "none.yml")
    with pytest.raises(e.BadManifest):
        run(archive, "merge", site, site, "--manifest", site)
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(e.NotAnArchive):
        run(plan, text)


def test_the_receipt_tells_everything(site: Path, tmp_path: Path) -> None:
    back = tmp_path / "back.zip"
    back.write_bytes(canonical({b"a.html": b"new"}))
    with open_source(site) as source:
        made = make_plan(source, default_policy())
        imploded = source.implode(made)
        sent = list(imploded.digests())
    report = merge_into(site, back, imploded.manifest, digests=True)
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    receipt = build_receipt(
        source=site, plan=made, sent=sent, report=report, lease="L1", server="h:1",
        started=moment, finished=moment,
    )  # fmt: skip
    path = tmp_path / "receipt.json"
    path.write_text("old")
    write_receipt(path, receipt)
    found = json.loads(path.read_text())
    assert found["lease"] == "L1"
    assert found["started"] == "2030-01-01T00:00:00+00:00"
    assert [each["name"] for each in found["sent"]] == ["a.html", "[red]b.html"]
    assert found["changed"][0]["sha256"] == (
        "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"
    )
    assert found["kept_back"] == {"members": 3, "bytes": 9}
    assert found["not_returned"] == 1
    assert found["unchanged"] == []
