"""What the roles say about themselves agrees with what they do."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted((ROOT / "roles").iterdir())
PACK = ROOT / "roles" / "socketpool_server" / "files" / "pack.py"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_is_what_the_argument_specs_say(role: Path) -> None:
    spec = importlib.util.spec_from_file_location("roles", ROOT / "script/packaging/roles.py")
    assert spec is not None
    assert spec.loader is not None
    roles = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(roles)
    assert (role / "README.md").read_text() == roles.readme(role), "run script/roles-readme"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_is_specified_and_the_same(role: Path) -> None:
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    points = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    specified = {
        name: option.get("default") for name, option in points["main"].get("options", {}).items()
    }
    assert specified == defaults


def pack(*arguments: Path) -> str:
    command = [sys.executable, str(PACK), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_folder_of_services_packs_the_same_whoever_has_it(tmp_path: Path) -> None:
    digests = []
    for name, mode in (("one", 0o664), ("two", 0o600)):
        service = tmp_path / name / "pages"
        service.mkdir(parents=True)
        (service / "service.yml").write_text("description: pages\n")
        (service / "service.yml").chmod(mode)
        (service / "run.sh").write_text("#!/bin/sh\n")
        (service / "run.sh").chmod(mode | 0o100)
        digests.append(pack(tmp_path / name))
    (tmp_path / "two" / "pages" / "__pycache__").mkdir()
    (tmp_path / "two" / "pages" / "__pycache__" / "run.pyc").touch()
    assert digests == [pack(tmp_path / "two", tmp_path / "packed.tar")] * 2
    with tarfile.open(tmp_path / "packed.tar") as packed:
        modes = {entry.name: entry.mode for entry in packed}
    assert modes == {"pages": 0o750, "pages/run.sh": 0o750, "pages/service.yml": 0o640}
    (tmp_path / "two" / "pages" / "run.sh").write_text("#!/bin/sh\nexit\n")
    assert pack(tmp_path / "two") != digests[0]


def test_a_folder_that_is_missing_differs_from_any_other(tmp_path: Path) -> None:
    service = tmp_path / "services" / "pages"
    service.mkdir(parents=True)
    assert pack(tmp_path / "missing") != pack(tmp_path / "services")


def test_inventories_name_only_variables_that_roles_have() -> None:
    specified: set[str] = set()
    for role in ROLES:
        points = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
        for point in points["argument_specs"].values():
            specified |= set(point["options"])
    inventories = [
        *(ROOT / "inventory").rglob("*.yml"),
        *(ROOT / "molecule").rglob("hosts.yml"),
        *(ROOT / "molecule" / "shared" / "inventory").rglob("*.yml"),
    ]
    named = set()
    for inventory in inventories:  # also what is commented out, for somebody to uncomment
        text = inventory.read_text()
        named |= set(re.findall(r"(?m)^(?:# )?(socketpool_\w+):", text))
        named |= set(re.findall(r"\b(socketpool_(?:server|client|tunnel|release)_\w+):", text))
    assert named
    assert named <= specified
