"""What a good configuration comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from socketpool.config.settings import Settings, load_settings, shipped_catalogue
from socketpool.config.values import Address
from socketpool.core.ports import PortRange

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_range_alone_gives_the_shipped_catalogue() -> None:
    settings = load_settings("21000-21099", ephemeral=None)
    assert set(settings.services) == {"upload", "vendor", "download", "web"}
    assert settings.ports == PortRange(21000, 21099)
    assert str(settings.listen) == "127.0.0.1:8080"
    assert settings.services_host == "127.0.0.1"
    assert (settings.lease.ttl, settings.lease.max) == (60, 3600)


def test_an_empty_file_has_the_documented_defaults(tmp_path: Path) -> None:
    (tmp_path / "pool.yml").write_text("")
    settings = load_settings(str(tmp_path / "pool.yml"), ephemeral=None)
    by_range = load_settings("21000-21499", ephemeral=None)
    assert settings.source != by_range.source
    assert settings == by_range.model_copy(update={"source": settings.source})


def test_the_file_of_the_documentation_works(tmp_path: Path) -> None:
    (tmp_path / "pool.yml").write_text("""
pool:
  listen: 127.0.0.1:8080
  ports: 21000-21499
  lease: {ttl: 60s, max: 1h}
catalogue: [shipped]
services:
  upload: {warm: 4, max: 40}
""")
    settings = load_settings(str(tmp_path / "pool.yml"), ephemeral=PortRange(32768, 60999))
    assert (settings.services["upload"].warm, settings.services["upload"].max) == (4, 40)
    assert settings.services["vendor"].warm == 2


def test_the_command_line_s_address_wins(tmp_path: Path) -> None:
    (tmp_path / "pool.yml").write_text("pool: {listen: '127.0.0.1:1'}")
    listen = Address(host="::1", port=0)
    settings = load_settings(str(tmp_path / "pool.yml"), listen=listen, ephemeral=None)
    assert settings.listen == listen
    assert settings.services_host == "::1"


def test_a_catalogue_is_found_relative_to_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine" / "one"
    folder.mkdir(parents=True)
    (folder / "service.yml").write_text(yaml.safe_dump({"description": "x", "command": ["a"]}))
    (tmp_path / "pool.yml").write_text("catalogue: [mine, shipped]")
    monkeypatch.chdir("/")
    settings = load_settings(str(tmp_path / "pool.yml"), ephemeral=None)
    assert set(settings.services) == {"one", "upload", "vendor", "download", "web"}
    assert settings.services["one"].folder == str(folder)


def test_an_override_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "one"
    folder.mkdir(parents=True)
    service = {
        "description": "x",
        "command": ["a"],
        "limits": {"session_time": "5s", "memory": "1G"},
        "readiness": {"start": "3s"},
    }
    (folder / "service.yml").write_text(yaml.safe_dump(service))
    (tmp_path / "pool.yml").write_text(
        "catalogue: [services]\nservices: {one: {limits: {memory: 2G}, max: 9}}"
    )
    one = load_settings(str(tmp_path / "pool.yml"), ephemeral=None).services["one"]
    assert (one.max, one.limits.memory) == (9, 2 << 30)
    assert (one.warm, one.limits.session_time, one.readiness.start) == (1, 5, 3)


def test_settings_survive_the_way_to_the_pool_server(tmp_path: Path) -> None:
    (tmp_path / "pool.yml").write_text(
        "pool: {listen: '[::1]:0', lease: {ttl: 1500ms, max: 2m}}\n"
        "services: {upload: {warm: 1, environment: {A: '{port}'}, limits: {memory: 1G}}}"
    )
    settings = load_settings(str(tmp_path / "pool.yml"), ephemeral=None)
    text = settings.model_dump_json(by_alias=True)
    assert Settings.model_validate_json(text) == settings
    assert settings.lease.ttl == 1.5


def test_every_shipped_service_is_sound() -> None:
    for name, service in load_settings("21000-21099", ephemeral=None).services.items():
        assert service.description
        assert service.folder == str((shipped_catalogue() / name).resolve())
        assert service.plan().restart is (service.sdk is None)
        assert service.client in {name, None}
