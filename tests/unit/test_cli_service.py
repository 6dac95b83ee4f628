"""What ``socketpool service new`` writes and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from socketpool.cli.newservice import PLAIN, PROGRAM, VENDOR, Template, make_service
from socketpool.config.settings import read_service
from socketpool.errors import ConfigError, UsageError
from socketpool.testing import process

if TYPE_CHECKING:
    from pathlib import Path

ODD = ["3d", "no", "true", "none", "json", "class", "a-b-c", "x--y-", "1e5", "socketpool", "z" * 31]


@pytest.mark.parametrize("kind", [VENDOR, PROGRAM, PLAIN], ids=lambda kind: kind.folder)
@pytest.mark.parametrize("name", ODD)
def test_whatever_may_name_a_service_makes_one_that_is_valid(
    tmp_path: Path, name: str, kind: Template
) -> None:
    made = make_service(name, tmp_path / "services", kind)
    service = read_service(tmp_path / "services" / name)
    assert service.name == name
    for path in made:
        assert "@" not in path.name + path.read_text()
        assert path.suffix != ".py" or compile(path.read_text(), path, "exec")
    if service.client == "vendor":
        assert process(made[0].parent, {"a.txt": b"x \n"}).changed == {"a.txt": b"x\n"}


@pytest.mark.parametrize("name", ["", "Shout", "a_b", "../up", "a/b", "-x", "all", "z" * 32, "ü"])
def test_a_name_that_no_service_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="can't name a service"):
        make_service(name, tmp_path / "services", VENDOR)
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_shipped_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comes with socketpool"):
        make_service("vendor", tmp_path, VENDOR)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shout").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        make_service("shout", tmp_path, VENDOR)
    assert list((tmp_path / "shout").iterdir()) == []


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be made"):
        make_service("shout", tmp_path / "file", VENDOR)
