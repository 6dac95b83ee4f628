"""What users install: the wheel, and the scripts of a clone."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.pools import clean_environment

ROOT = Path(__file__).parents[2]
STEPS = ("uploader", "vendor", "downloader")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(ROOT)]
    subprocess.run(command, check=True)
    (found,) = out.glob("socketpool-*.whl")
    return found


def test_the_wheel_holds_the_catalogue_the_howtos_and_its_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for service in ("upload", "vendor", "download"):
        assert f"socketpool/catalogue/{service}/service.yml" in names
        assert f"socketpool/catalogue/{service}/{service}.py" in names
    assert "socketpool/catalogue/web/service.yml" in names
    assert "socketpool/catalogue/extra/redis/service.yml" in names
    assert "socketpool/catalogue/extra/postgres/start_postgres.py" in names
    assert "socketpool/py.typed" in names
    assert "socketpool/archive/policy.yml" in names
    assert "socketpool/cli/templates/vendor/vendor.py.txt" in names
    steps = [f"{step}_{side}" for step in STEPS for side in ("client", "server")]
    for command in ("socketpool", "socketpool_client", "socketpool_server", *steps):
        assert f"socketpool/howto/{command}.md" in names
    assert {name.partition("/")[0] for name in names} == {
        "socketpool",
        next(n.partition("/")[0] for n in names if ".dist-info/" in n),
    }


def test_the_installed_commands_work_away_from_the_clone(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True, symlinks=True)
    subprocess.run(
        [home / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    # The dependencies are this environment's: their installation is pip's business, not ours.
    (site,) = home.glob("lib/python*/site-packages")
    others = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "dependencies.pth").write_text(others + "\n")
    command: list[str | Path] = [home / "bin" / "socketpool_server", "-help"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd="/", env=clean_environment(home)
    )
    assert "run a pool of services in the foreground" in result.stdout
    code = "import socketpool.config.settings as s; print(s.shipped_catalogue())"
    found = subprocess.run(
        [home / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    ).stdout.strip()
    assert Path(found).is_relative_to(home)
    assert (Path(found) / "vendor" / "vendor.py").is_file()


def test_the_demonstration_succeeds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {p for p in Path("/tmp").iterdir() if p.name.startswith("socketpool-demo-")}
    result = subprocess.run(
        [ROOT / "script" / "demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=clean_environment(tmp_path) | {"PATH": os.environ["PATH"]},
    )
    assert result.returncode == 0, result.stderr
    assert "27 sent, 32 kept back" in result.stdout
    assert "all 29 images untouched" in result.stdout
    assert {p for p in Path("/tmp").iterdir() if p.name.startswith("socketpool-demo-")} == before
