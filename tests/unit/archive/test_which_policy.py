"""Which policy counts is clear and told; a run that would send nothing says why."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from socketpool.archive.policy import find_policy
from socketpool.archive.refusals import NothingToSend, OverlappingMembers
from socketpool.archive.sources import open_source
from socketpool.cli.archive_commands import archive, plan
from socketpool.errors import ConfigError
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from pathlib import Path


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "site.zip"
    path.parent.mkdir()
    path.write_bytes(build([Spec(b"a.html", b"x"), Spec(b"b.md", b"y")]).data)
    return path


@pytest.mark.parametrize("name", [".socketpool.yml", ".socketpool.yaml"])
def test_the_policy_that_counts_is_named(site: Path, name: str) -> None:
    assert "Decided by the shipped policy." in invoke(plan, site).output
    (site.parent / name).write_text('include: ["*.md"]')
    assert f"the policy {site.parent / name}" in invoke(plan, site).output.replace("\n", "")
    found = json.loads(invoke(plan, site, "--json").output)
    assert found["policy"] == f"the policy {site.parent / name}"
    assert found["send"]["members"] == 1


def test_two_policies_are_a_mistake(site: Path) -> None:
    (site.parent / ".socketpool.yml").write_text("deny: []")
    (site.parent / ".socketpool.yaml").write_text("deny: []")
    with pytest.raises(ConfigError, match="there are two policies"):
        find_policy(site)


def test_a_policy_that_leads_nowhere_is_a_mistake(site: Path) -> None:
    (site.parent / ".socketpool.yml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="leads nowhere"):
        find_policy(site)


def test_a_linked_archive_has_one_policy_or_a_question(site: Path, tmp_path: Path) -> None:
    link = tmp_path / "site.zip"
    link.symlink_to(site)
    assert find_policy(link).source == "the shipped policy"
    (site.parent / ".socketpool.yml").write_text('deny: ["*.html"]')
    with pytest.raises(ConfigError, match="is a link") as caught:
        find_policy(link)
    assert "--policy" in caught.value.hint
    assert not find_policy(link, site.parent / ".socketpool.yml").decide(b"a.html").send
    (tmp_path / ".socketpool.yaml").write_text('deny: ["*.html"]')
    assert not find_policy(link).decide(b"a.html").send


def test_nothing_to_send_is_said_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "site.zip"
    path.write_bytes(
        build([Spec(b"a.key", b"x"), Spec(b"b.png", b"x"), Spec(b"c.html", b"x", flags=1)]).data
    )
    out = tmp_path / "out.zip"
    result = invoke(archive, "implode", path, "-o", out)
    assert isinstance(result.exception, NothingToSend)
    for reason in ("deny: *.key (1)", "not included (1)", "encrypted (1)"):
        assert reason in result.exception.message
    assert "--allow-empty" in result.exception.hint
    assert not out.exists()
    assert invoke(archive, "implode", path, "-o", out, "--allow-empty").exit_code == 0
    assert zipfile.ZipFile(out).namelist() == []


@pytest.mark.parametrize("field", [b"\xff" * 8, (1 << 63).to_bytes(8, "little")])
def test_a_member_larger_than_any_number_is_refused(tmp_path: Path, field: bytes) -> None:
    data = bytearray(build([Spec(b"a.html", b"x", zip64=True)]).data)
    at = data.index(b"\1\0\x18\0") + 4
    data[at : at + 16] = field * 2
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises(OverlappingMembers):
        open_source(path)
