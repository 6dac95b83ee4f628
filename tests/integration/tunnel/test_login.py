"""Logging in with keys of files, of an agent, and certificates."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from sshd import keygen
from tunnels import Told, tunnel_through

from socketpool.tunnel.failures import LoginRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sshd import Sshd, SshdMaker


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Iterator[str]:
    """An ssh-agent that holds the keys; gives its socket."""
    path = str(folder / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        environment = os.environ | {"SSH_AUTH_SOCK": path}
        for key in keys:
            while subprocess.run(
                ["ssh-add", "-q", key], env=environment, capture_output=True, check=False
            ).returncode:
                assert process.poll() is None
        yield path
    finally:
        process.terminate()
        process.wait()


def authorize(server: Sshd, key: Path) -> None:
    """Let this key in, and no other."""
    shutil.copy(key.with_suffix(".pub"), server.folder / "authorized_keys")


def with_agent(server: Sshd, *, only: str = "no") -> None:
    text = server.client_config.read_text()
    text = text.replace("IdentityAgent none", "IdentityAgent SSH_AUTH_SOCK")
    server.client_config.write_text(text.replace("IdentitiesOnly yes", f"IdentitiesOnly {only}"))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_file_of_any_kind_logs_in(new_sshd: SshdMaker, kind: str) -> None:
    server = new_sshd.make()
    (server.folder / "user").unlink()
    authorize(server, keygen(server.folder / "user", kind=kind))
    server.start()
    with tunnel_through(server):
        pass


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_passphrase_is_asked_for_once_and_not_again_when_connecting_again(
    new_sshd: SshdMaker, kind: str
) -> None:
    server = new_sshd.make()
    (server.folder / "user").unlink()
    authorize(server, keygen(server.folder / "user", kind=kind, passphrase="open sesame"))
    server.start()
    told = Told()
    with tunnel_through(server, passphrase="open sesame", told=told) as tunnel:
        server.cut()
        from waiting import eventually

        eventually(lambda: len(told.changes) >= 3, "connected again")
        assert tunnel.state == "up"
    assert told.asked == [f"passphrase of {server.folder}/user: "]


def test_a_wrong_passphrase_is_asked_for_again_and_then_given_up(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    (server.folder / "user").unlink()
    authorize(server, keygen(server.folder / "user", passphrase="open sesame"))
    server.start()
    told = Told()
    with (
        pytest.raises(LoginRefused, match="locked by a passphrase"),
        tunnel_through(server, passphrase="wrong", told=told),
    ):
        pass
    assert len(told.asked) == 3


def test_where_nobody_can_be_asked_the_locked_key_is_named(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    (server.folder / "user").unlink()
    authorize(server, keygen(server.folder / "user", passphrase="open sesame"))
    server.start()
    with (
        pytest.raises(LoginRefused, match=f"{server.folder}/user is locked by a passphrase"),
        tunnel_through(server),
    ):
        pass


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_of_the_agent_logs_in(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    server = new_sshd.make()
    key = keygen(tmp_path / "held", kind=kind)
    authorize(server, key)
    with_agent(server)
    server.start()
    with agent(new_sshd.folder(), key) as path:
        key.unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with tunnel_through(server):
            pass


def test_with_identities_only_the_agent_s_other_keys_are_not_shown(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.make()
    key = keygen(tmp_path / "held")
    authorize(server, key)
    with_agent(server, only="yes")
    server.start()
    with agent(new_sshd.folder(), key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(LoginRefused) as caught, tunnel_through(server):
            pass
    assert "of the agent" not in caught.value.message


def test_a_locked_key_that_the_agent_holds_is_not_asked_for(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.make()
    plain = shutil.copy(server.folder / "user", tmp_path / "plain")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "locked", "-f", server.folder / "user"], check=True
    )
    with_agent(server, only="yes")
    server.start()
    told = Told()
    with agent(new_sshd.folder(), plain) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with tunnel_through(server, told=told):
            pass
    assert told.asked == []


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
@pytest.mark.parametrize("held", ["file", "agent"])
def test_a_certificate_logs_in_where_the_bare_key_does_not(
    new_sshd: SshdMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    held: str,
) -> None:
    authority = keygen(tmp_path / "authority")
    server = new_sshd.make(options=f"TrustedUserCAKeys {authority}.pub")
    (server.folder / "authorized_keys").write_text("")
    (server.folder / "user").unlink()
    key = keygen(server.folder / "user", kind=kind)
    server.start()
    with pytest.raises(LoginRefused), tunnel_through(server):
        pass
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", getpass.getuser(), f"{key}.pub"],
        check=True,
    )
    if held == "file":
        with tunnel_through(server):
            pass
        return
    with_agent(server)
    with agent(new_sshd.folder(), key) as path:
        for file in server.folder.glob("user*"):
            file.unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with tunnel_through(server):
            pass


def test_when_no_key_is_taken_those_that_were_tried_are_named(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    (server.folder / "authorized_keys").write_text("")
    second = keygen(server.folder / "second", kind="ecdsa")
    server.client_options = f"IdentityFile {second}"
    server.write_client_config()
    server.start()
    with pytest.raises(LoginRefused) as caught, tunnel_through(server):
        pass
    assert f"ssh-ed25519 {server.folder}/user" in caught.value.message
    assert f"ecdsa-sha2-nistp256 {second}" in caught.value.message
    assert "authorized_keys" in caught.value.hint


def test_a_host_that_hangs_up_after_too_many_keys_is_said_to(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(options="MaxAuthTries 1")
    (server.folder / "authorized_keys").write_text("")
    second = keygen(server.folder / "second")
    server.client_options = f"IdentityFile {second}"
    server.write_client_config()
    server.start()
    with pytest.raises(LoginRefused, match="closed the connection"), tunnel_through(server):
        pass


def test_a_host_that_takes_no_keys_at_all_is_said_to(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(
        options="Match all\n  PubkeyAuthentication no\n  PasswordAuthentication yes"
    )
    server.start()
    with pytest.raises(LoginRefused, match="password"), tunnel_through(server):
        pass
