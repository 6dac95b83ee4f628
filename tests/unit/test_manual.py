"""Manual pages and completion, as packages bring them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from socketpool.cli.base import howto

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    command: list[str | Path] = [
        sys.executable,
        ROOT / "script" / "packaging" / "manual.py",
        folder,
    ]
    subprocess.run(command, check=True)
    return folder


def test_every_command_has_a_page_and_completion(share: Path) -> None:
    pages = {path.stem for path in (share / "man" / "man1").iterdir()}
    assert pages == {path.stem for path in (ROOT / "socketpool" / "howto").glob("*.md")}
    for name in pages:
        assert (
            f"_{name.upper()}_COMPLETE"
            in (share / "bash-completion" / "completions" / name).read_text()
        )
        assert f"#compdef {name}" in (share / "zsh" / "site-functions" / f"_{name}").read_text()


def test_a_page_says_what_the_help_says(share: Path) -> None:
    page = (share / "man" / "man1" / "socketpool_client.1").read_text()
    assert page.startswith('.TH "SOCKETPOOL_CLIENT" 1')
    assert ".SH EXIT CODES\n" in page
    assert ".SH OPTIONS\n" in page
    plain = page.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")
    for line in howto("socketpool_client").splitlines()[1:]:
        assert line.rstrip(":") in plain or line.rstrip(":").upper() in plain
    # Of lines that begin as a request does, each is one of ours.
    requests = {line.split()[0] for line in page.splitlines() if line[:1] in {".", "'"}}
    assert requests <= {".TH", ".SH", ".PP", ".nf", ".fi", ".sp"}
