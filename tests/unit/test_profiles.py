"""The client's own file: pools by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from socketpool.config.profiles import client_file, find_profile
from socketpool.config.values import DEFAULT_POOL
from socketpool.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "socketpool" / "client.yml"
    path.parent.mkdir()
    return path


def test_a_profile_is_read_with_its_defaults(file: Path) -> None:
    file.write_text("profiles: {acme: {ssh: deploy@acme.example, token_file: ~/t}, near: {}}")
    acme = find_profile("acme")
    assert (acme.ssh, str(acme.token_file), acme.pool) == (
        "deploy@acme.example",
        "/home/me/t",
        DEFAULT_POOL,
    )
    assert find_profile("near").ssh is None


def test_the_file_is_in_the_configuration_home(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client_file() == file
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert str(client_file()) == "/home/me/.config/socketpool/client.yml"


def test_a_missing_profile_is_told_with_those_there_are_and_the_file(file: Path) -> None:
    with pytest.raises(UsageError, match="there are: none") as caught:
        find_profile("acme")
    assert str(file) in caught.value.hint
    file.write_text("profiles: {one: {}, two: {}}")
    with pytest.raises(UsageError, match="@one, @two"):
        find_profile("acme")


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"shh": "host"}, "profiles.acme.shh: unknown key; allowed here: pool, ssh"),
        ({"ssh": "-oProxyCommand=id"}, "is no SSH destination"),
        ({"pool": "127.0.0.1"}, "is not an address"),
        ({"pool": "127.0.0.1:0"}, "not a port"),
        ({"token_file": 5}, "profiles.acme.token_file"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(
    file: Path, profile: dict[str, object], said: str
) -> None:
    file.write_text("profiles:\n" + yaml.safe_dump({"acme": profile}).replace("\n", "\n"))
    file.write_text(yaml.safe_dump({"profiles": {"acme": profile}}))
    with pytest.raises(ConfigError) as caught:
        find_profile("acme")
    assert said in caught.value.message
    assert f"{file}, line 3" in caught.value.message
