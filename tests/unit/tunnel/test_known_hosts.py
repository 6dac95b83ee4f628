"""known_hosts files: which key a host may show."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.errors import ConfigError
from socketpool.tunnel.hostkeys import (
    MAX_FILE_BYTES,
    HostKey,
    KnownHosts,
    Verdict,
    host_name,
    remember,
)

if TYPE_CHECKING:
    from pathlib import Path

KEY = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + b"k" * 36)
OTHER = HostKey("ssh-ed25519", b"\0\0\0\x0bssh-ed25519" + b"o" * 36)
RSA = HostKey("ssh-rsa", b"\0\0\0\x07ssh-rsa" + b"r" * 36)


def line(names: str, key: HostKey = KEY, marker: str = "") -> str:
    return f"{marker} {names} {key.type} {key.base64} a comment\n".lstrip()


def known(tmp_path: Path, *lines: str) -> KnownHosts:
    path = tmp_path / "known_hosts"
    path.write_text("".join(lines))
    return KnownHosts([path])


@pytest.mark.parametrize(
    ("names", "host", "found"),
    [
        ("acme", "acme", True),
        ("ACME", "acme", True),
        ("acme", "acme2", False),
        ("other,acme", "acme", True),
        ("*.example", "a.example", True),
        ("*.example,!b.example", "b.example", False),
        ("!b.example,*.example", "a.example", True),
        ("a?me", "acme", True),
        ("[acme]:2222", "[acme]:2222", True),
        ("[acme]:2222", "a", False),
        ("[acme]:*", "[acme]:2222", True),
        ("acme", "[acme]:2222", False),
    ],
)
def test_names_and_patterns_cover_hosts(tmp_path: Path, names: str, host: str, found: bool) -> None:
    verdict, _ = known(tmp_path, line(names)).judge(host, KEY)
    assert verdict is (Verdict.KNOWN if found else Verdict.UNKNOWN)


def test_names_that_ssh_keygen_has_hashed_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(line("acme,[acme]:2222"))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", path], check=True, capture_output=True)
    assert "acme" not in path.read_text()
    hosts = KnownHosts([path])
    assert hosts.judge("acme", KEY)[0] is Verdict.KNOWN
    assert hosts.judge("[acme]:2222", KEY)[0] is Verdict.KNOWN
    assert hosts.judge("acme", OTHER)[0] is Verdict.CHANGED
    assert hosts.judge("other", KEY)[0] is Verdict.UNKNOWN


def test_another_key_of_a_known_host_is_a_change_whatever_its_type(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("acme"), line("acme", RSA))
    assert hosts.judge("acme", RSA)[0] is Verdict.KNOWN
    verdict, entry = hosts.judge("acme", OTHER)
    assert verdict is Verdict.CHANGED
    assert entry is not None
    assert (entry.line, entry.key) == (1, KEY)
    assert hosts.types("acme") == ["ssh-ed25519", "ssh-rsa"]


def test_a_revoked_key_stays_revoked_wherever_else_it_is_known(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("acme"), line("*", KEY, "@revoked"))
    assert hosts.judge("acme", KEY)[0] is Verdict.REVOKED
    assert hosts.judge("acme", OTHER)[0] is Verdict.CHANGED
    assert known(tmp_path, line("*", KEY, "@revoked")).judge("new", KEY)[0] is Verdict.REVOKED


def test_a_certificate_authority_s_key_is_nobody_s_host_key(tmp_path: Path) -> None:
    hosts = known(tmp_path, line("*", KEY, "@cert-authority"))
    assert hosts.judge("acme", KEY)[0] is Verdict.UNKNOWN
    assert hosts.has_authority("acme")


@pytest.mark.parametrize(
    "bad", ["# a comment", "", "acme", "acme ssh-ed25519", "acme ssh-ed25519 !!!", "@revoked"]
)
def test_what_is_no_entry_is_passed_over(tmp_path: Path, bad: str) -> None:
    assert known(tmp_path, bad + "\n", line("acme")).judge("acme", KEY)[0] is Verdict.KNOWN


@given(st.binary(max_size=200))
def test_any_file_can_be_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "known_hosts"
    path.write_bytes(data + b"\n" + line("acme").encode())
    assert KnownHosts([path]).judge("acme", KEY)[0] is not Verdict.REVOKED


def test_a_file_that_is_no_known_hosts_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than"):
        KnownHosts([path])


def test_one_that_can_t_be_read_is_passed_over_and_said(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(line("acme"))
    hosts = KnownHosts([tmp_path, tmp_path / "none", tmp_path / "known_hosts"])
    assert hosts.judge("acme", KEY)[0] is Verdict.KNOWN
    assert hosts.unreadable == [f"{tmp_path}: Is a directory"]


def test_names_are_those_that_openssh_writes() -> None:
    assert host_name("acme", 22) == "acme"
    assert host_name("acme", 2222) == "[acme]:2222"
    assert host_name("::1", 2222) == "[::1]:2222"
    assert host_name("acme", 2222, "alias") == "alias"


def test_the_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True
    )
    kind, data, *_ = (tmp_path / "key.pub").read_text().split()
    shown = subprocess.run(
        ["ssh-keygen", "-lf", tmp_path / "key"], check=True, capture_output=True, text=True
    ).stdout
    assert HostKey(kind, base64.b64decode(data)).fingerprint == shown.split()[1]


def test_a_key_is_added_to_a_file_which_is_private(tmp_path: Path) -> None:
    path = tmp_path / ".ssh" / "known_hosts"
    remember(path, "acme", KEY, hashed=False)
    assert path.read_text() == f"acme {KEY.type} {KEY.base64}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
