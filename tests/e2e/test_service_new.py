"""A new service in a minute: made, tested and used as its author would."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.pools import PoolMaker, clean_environment, run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

KINDS = {"my-vendor": [], "my-program": ["--program"], "my-plain": ["--plain"]}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where somebody has made one service of each kind."""
    with PoolMaker() as maker:
        folder = maker.folder()
        for name, options in KINDS.items():
            result = run_tool("socketpool", "service", "new", name, *options, cwd=folder)
            assert result.returncode == 0, result.stderr
            assert f"pytest services/{name}" in result.stdout
            assert "catalogue: [shipped, services]" in result.stdout
        assert sorted(p.name for p in (folder / "services").iterdir()) == sorted(KINDS)
        yield folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[RunningPool]:
    """A pool by the line that the command told."""
    with PoolMaker() as maker:
        ports = maker.ports()
        config = folder / "pool.yml"
        config.write_text(f"pool: {{ports: {ports}}}\ncatalogue: [shipped, services]\n")
        yield maker.launch(maker.folder(), config, ports)


@pytest.mark.parametrize("name", KINDS)
def test_its_own_test_passes(folder: Path, name: str) -> None:
    options = ("-W", "error", "-m", "pytest", "-p", "no:cacheprovider")
    result = subprocess.run(
        [sys.executable, *options, f"services/{name}"],
        cwd=folder,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout


@pytest.mark.parametrize("name", KINDS)
def test_what_was_made_is_clean(folder: Path, name: str) -> None:
    made = folder / "services" / name
    options = ("--isolated", "--no-cache")
    lint = run_tool("ruff", "check", *options, "--select", "ANN,B,E,F,I,RUF,UP,W", made)
    assert lint.returncode == 0, lint.stdout
    style = run_tool("ruff", "format", *options, "--check", made)
    assert style.returncode == 0, style.stdout


@pytest.mark.parametrize("name", ["my-vendor", "my-program"])
def test_it_works_in_a_real_pool(pool: RunningPool, tmp_path: Path, name: str) -> None:
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("deep/a.html", "one \ntwo\t\n")
        out.writestr("b.png", " \n")
    result = run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive, "upload", name, "download"),
        *("--state-dir", pool.state),
    )
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(archive) as file:
        assert file.read("deep/a.html") == b"one\ntwo\n"
        assert file.read("b.png") == b" \n"


def test_a_plain_one_is_leased_in_a_real_pool(pool: RunningPool, tmp_path: Path) -> None:
    result = run_tool("socketpool", "lease", "my-plain", "--state-dir", pool.state)
    assert result.returncode == 0, result.stderr
    with urllib.request.urlopen(f"http://{result.stdout.strip()}/", timeout=60) as answer:
        assert answer.read() == b"hello from my-plain\n"
    refused = run_tool(
        "socketpool_client",
        *(pool.host, pool.port, __file__, "my-plain", "--state-dir", pool.state),
    )
    assert refused.returncode == 2
    assert "socketpool lease my-plain" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my-vendor"], "exists already"),
        (["Not_A_Name"], "can't name a service"),
        (["web"], "comes with socketpool"),
        (["other", "--plain", "--program"], "either"),
    ],
)
def test_what_can_not_be_made_is_refused(folder: Path, arguments: list[str], said: str) -> None:
    result = run_tool("socketpool", "service", "new", *arguments, cwd=folder)
    assert result.returncode == 2
    assert said in result.stderr
    assert sorted(p.name for p in (folder / "services").iterdir()) == sorted(KINDS)
