"""Hosts are recognised, or refused with what to do about it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from sshd import HOST, keygen
from tunnels import Told, tunnel_through

from socketpool.tunnel.failures import HostKeyRefused

if TYPE_CHECKING:
    from pathlib import Path

    from sshd import Sshd, SshdMaker


def fingerprint(public: Path) -> str:
    shown = subprocess.run(
        ["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[1]


def refusal(server: Sshd, **options: bool) -> HostKeyRefused:
    with pytest.raises(HostKeyRefused) as caught, tunnel_through(server, **options):
        pass
    return caught.value


def test_an_unknown_key_is_refused_with_its_fingerprint_and_the_flag(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    server.known_hosts.unlink()
    error = refusal(server)
    assert fingerprint(server.folder / "host_ed25519.pub") in error.message
    assert "--accept-new" in error.hint
    assert not server.known_hosts.exists()


@pytest.mark.parametrize("hashed", ["yes", "no"])
def test_a_new_key_that_is_accepted_is_known_from_then_on(new_sshd: SshdMaker, hashed: str) -> None:
    server = new_sshd.make(client_options=f"HashKnownHosts {hashed}").start()
    server.known_hosts.write_text("# mine, without a newline at its end")
    told = Told()
    with tunnel_through(server, accept_new=True, told=told):
        pass
    assert any("added" in note for note in told.notes)
    text = server.known_hosts.read_text()
    assert text.startswith("# mine, without a newline at its end\n")
    assert (f"[{HOST}]:{server.port}" in text) == (hashed == "no")
    with tunnel_through(server):
        pass
    found = subprocess.run(
        ["ssh-keygen", "-F", f"[{HOST}]:{server.port}", "-f", server.known_hosts],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ssh-ed25519" in found.stdout  # OpenSSH reads it too


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_key_is_refused_even_with_accept_new(
    new_sshd: SshdMaker, accept_new: bool
) -> None:
    server = new_sshd.make()
    before = server.known_hosts.read_bytes()
    (server.folder / "host_ed25519").unlink()
    keygen(server.folder / "host_ed25519")
    server.start()
    error = refusal(server, accept_new=accept_new)
    assert fingerprint(server.folder / "host_ed25519.pub") in error.message
    assert f"ssh-keygen -f {server.known_hosts} -R '[{HOST}]:{server.port}'" in error.hint
    assert server.known_hosts.read_bytes() == before


def test_the_command_of_the_hint_and_the_flag_lead_out_of_it(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    (server.folder / "host_ed25519").unlink()
    keygen(server.folder / "host_ed25519")
    server.start()
    command = refusal(server).hint.partition("fingerprint: ")[2].partition(", then")[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    with tunnel_through(server, accept_new=True):
        pass


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_revoked_key_is_refused_although_it_is_known(
    new_sshd: SshdMaker, accept_new: bool
) -> None:
    server = new_sshd.start()
    kind, key, *_ = (server.folder / "host_ed25519.pub").read_text().split()
    with server.known_hosts.open("a") as file:
        file.write(f"@revoked * {kind} {key}\n")
    error = refusal(server, accept_new=accept_new)
    assert "revoked" in error.message
    assert f"line 2 of {server.known_hosts}" in error.hint


def test_of_a_host_with_several_keys_the_known_one_is_asked_for(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    rsa = keygen(server.folder / "host_rsa", kind="rsa")
    server.options = f"HostKey {rsa}"
    kind, key, *_ = rsa.with_suffix(".pub").read_text().split()
    server.known_hosts.write_text(f"[{HOST}]:{server.port} {kind} {key}\n")
    server.start()
    with tunnel_through(server):
        pass


def test_a_key_that_the_system_knows_needs_not_be_known_to_the_user(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.start()
    system = server.known_hosts.rename(tmp_path / "system")
    config = server.client_config.read_text()
    server.client_config.write_text(
        config.replace(
            "GlobalKnownHostsFile none", f"GlobalKnownHostsFile {tmp_path}/none {system}"
        )
    )
    with tunnel_through(server):
        pass


def test_the_key_may_be_in_another_of_several_files_or_under_an_alias(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.make(client_options="HostKeyAlias the-pool")
    kind, key, *_ = (server.folder / "host_ed25519.pub").read_text().split()
    (tmp_path / "second").write_text(f"the-pool {kind} {key}\n")
    config = server.client_config.read_text()
    server.client_config.write_text(
        config.replace(f"{server.known_hosts}\n", f"{tmp_path}/none {tmp_path}/second\n")
    )
    server.start()
    with tunnel_through(server):
        pass
