"""What ssh_config means: as ``ssh -G`` says it, and where there is no ssh, nearly the same."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.config.destination import Destination
from socketpool.errors import ConfigError
from socketpool.tunnel.sshconfig import resolve

if TYPE_CHECKING:
    from socketpool.tunnel.hostsettings import HostSettings

DOCS = Path(__file__).parents[3] / "docs" / "tunnel.md"
ROW = re.compile(r"\| `(.+)`(?: \(Debian\))? \| (\w+) \| (.+) \| (.+) \|")


def settings(folder: Path, text: str) -> HostSettings:
    lines = text.replace("FOLDER", str(folder)).replace("; ", "\n  ")
    (folder / "port-9").write_text("Port 9\n")
    config = folder / "config"
    config.write_text(f"Host acme\n  {lines}\n")
    return resolve(Destination.parse("acme"), config)


def shown(folder: Path, text: str, name: str) -> str:
    try:
        value = getattr(settings(folder, text), name)
    except ConfigError:
        return "refused"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def rows() -> list[tuple[str, ...]]:
    return [match.groups() for match in ROW.finditer(DOCS.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("text", "name", "with_ssh", "without"), rows())
def test_the_documented_differences_are_what_they_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    name: str,
    with_ssh: str,
    without: str,
) -> None:
    assert shown(tmp_path, text, name) == with_ssh
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert shown(tmp_path, text, name) == without


def test_there_are_documented_differences() -> None:
    assert len(rows()) >= 5


@pytest.mark.parametrize(
    "text",
    [
        "HostName %h.example",
        "HostName ACME.example",
        "User bob; Port 2222",
        "User=bob",
        'IdentityFile "~/my key"',
        "IdentityFile ~/a; IdentityFile ~/.ssh/%r@%h; CertificateFile ~/c",
        "IdentityFile none; IdentitiesOnly yes; IdentityAgent ~/x",
        "IdentityAgent none",
        "UserKnownHostsFile none; GlobalKnownHostsFile /a /b; HashKnownHosts yes",
        "ConnectTimeout 1m; ServerAliveInterval 2m; ServerAliveCountMax 5",
        "ProxyJump a,b",
        "ProxyCommand nc %h %p 2>/dev/null | cat",
        "Ciphers aes256-ctr; MACs hmac-sha2-256; KexAlgorithms curve25519-sha256",
        "StrictHostKeyChecking accept-new; CheckHostIP yes; HostKeyAlias x",
        "RevokedHostKeys /r; KnownHostsCommand /bin/echo %H; RequiredRSASize 3072",
        "PubkeyAuthentication no; NumberOfPasswordPrompts 1",
        "PreferredAuthentications keyboard-interactive",
        "AddressFamily inet6; BindAddress ::1",
        "Port 5\nHost ac?e\n  User x",
        "Port 5\nHost !acme *\n  User x",
        "Port 5\nMatch host acme user root\n  User x",
        "Port 5\nMatch !host other\n  User x",
    ],
)
def test_everything_else_means_the_same_with_and_without_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # ssh does not look at it

    def told() -> dict[str, Any]:
        found = asdict(settings(tmp_path, text))
        if "IdentityFile" not in text:
            del found["identity_files"]  # ssh knows more of its defaults
        return found

    with_ssh = told()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert told() == with_ssh


def test_a_config_may_be_in_any_encoding(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_bytes(b"Host acme\n  IdentityFile /k/J\xfcrgen\n")
    (path,) = resolve(Destination.parse("acme"), config).identity_files
    assert bytes(path) == b"/k/J\xfcrgen"
