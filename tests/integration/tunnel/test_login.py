"""Logging in with keys of files, of an agent, and certificates."""

from __future__ import annotations

import base64
import contextlib
import getpass
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from socketpool.tunnel.failures import LoginRefused
from socketpool.tunnel.sshdata import string
from tests.support.sshd import keygen
from tests.support.tunnels import Told, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.sshd import Sshd, SshdMaker


@contextlib.contextmanager
def agent(folder: Path, *keys: Path, confirm: Path | None = None) -> Iterator[str]:
    """An ssh-agent that holds the keys; gives its socket.

    With ``confirm`` that program is asked before each use of a key.
    """
    path = str(folder / "agent")
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", path],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"SSH_ASKPASS": str(confirm), "DISPLAY": ":none"},
    )
    options = ["-c"] if confirm else []
    try:
        environment = os.environ | {"SSH_AUTH_SOCK": path}
        for key in keys:
            while subprocess.run(
                ["ssh-add", "-q", *options, key],
                env=environment,
                capture_output=True,
                check=False,
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
        from tests.support.waiting import eventually

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
        pytest.raises(LoginRefused, match=rf"{server.folder}/user is locked by a passphrase\)"),
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
    plain = tmp_path / "plain"
    shutil.copy(server.folder / "user", plain)
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


# -- beside OpenSSH's own client ------------------------------------------------------------------


def agree(server: Sshd, *, works: bool = True) -> LoginRefused | None:
    """Both clients get in, or neither does; gives the reason of ours."""
    assert server.ssh_works() is works
    if works:
        with tunnel_through(server):
            return None
    with pytest.raises(LoginRefused) as caught, tunnel_through(server):
        pass
    return caught.value


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_key_that_the_agent_will_not_sign_with_is_passed_over(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.make()
    denied, good = keygen(tmp_path / "denied"), keygen(tmp_path / "good")
    both = [key.with_suffix(".pub").read_text() for key in (denied, good)]
    (server.folder / "authorized_keys").write_text("".join(both))
    with_agent(server)
    server.start()
    with agent(new_sshd.folder(), denied, confirm=program(tmp_path / "deny", "exit 1")) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        error = agree(server, works=False)
        assert error is not None
        assert "denied of the agent (the agent does not sign with it)" in error.message
        subprocess.run(["ssh-add", "-q", good], check=True, capture_output=True)
        agree(server)


def test_the_agent_is_not_asked_to_sign_with_a_key_that_the_host_does_not_take(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token would have to be touched for each."""
    server = new_sshd.make()
    others = [keygen(tmp_path / f"other{number}") for number in range(3)]
    good = keygen(tmp_path / "good")
    authorize(server, good)
    with_agent(server)
    server.start()
    confirm = program(tmp_path / "confirm", f'echo "$1" >>{tmp_path}/asked')
    with agent(new_sshd.folder(), *others, good, confirm=confirm) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with tunnel_through(server):
            pass
    assert (tmp_path / "asked").read_text().count("Allow use of key") == 1


@pytest.mark.parametrize("only", ["yes", "no"])
def test_the_public_half_names_a_key_of_the_agent(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    server = new_sshd.make(options="MaxAuthTries 2")
    others = [keygen(tmp_path / f"other{number}") for number in range(3)]
    key = keygen(tmp_path / "held")
    authorize(server, key)
    with_agent(server, only=only)
    text = server.client_config.read_text()
    server.client_config.write_text(text.replace(f"{server.folder}/user", f"{key}.pub"))
    server.start()
    with agent(new_sshd.folder(), *others, key) as path:
        key.unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        agree(server)
    error = agree(server, works=False)
    assert error is not None
    assert "has to be in the agent" in error.message


@pytest.mark.parametrize(
    "form", ["beside the key", "named", "as the key", "beside its public half"]
)
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_certificate_in_a_file_goes_with_a_key_that_only_the_agent_has(
    new_sshd: SshdMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    kind: str,
) -> None:
    authority = keygen(tmp_path / "authority")
    server = new_sshd.make(options=f"TrustedUserCAKeys {authority}.pub")
    (server.folder / "authorized_keys").write_text("")
    key = keygen(tmp_path / "held", kind=kind)
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", getpass.getuser(), f"{key}.pub"],
        check=True,
    )
    with_agent(server)
    named, extra = key, ""
    if form == "named":
        extra = f"  CertificateFile {key}-cert.pub\n"
        named = server.folder / "user"
    elif form == "as the key":
        named = tmp_path / "held-cert.pub"
    elif form == "beside its public half":
        named = tmp_path / "held.pub"
        (tmp_path / "held-cert.pub").rename(tmp_path / "held.pub-cert.pub")
    text = server.client_config.read_text()
    text = text.replace(f"IdentityFile {server.folder}/user\n", f"IdentityFile {named}\n{extra}")
    server.client_config.write_text(text)
    server.start()
    with agent(new_sshd.folder(), key) as path:
        key.unlink()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        agree(server)


def test_comments_of_keys_may_be_in_any_encoding(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.make()
    public = server.folder / "user.pub"
    words = public.read_bytes().split()[:2]
    for comment in ("J\xfcrgens Schl\xfcssel".encode("latin-1"), b"\xff\xfe", b""):
        public.write_bytes(b" ".join([*words, comment]) + b"\n")
        agree(server.start())
        server.kill()
    key = tmp_path / "held"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", b"Schl\xfcssel", "-f", key],
        check=True,
    )
    authorize(server, key)
    with_agent(server)
    server.start()
    with agent(new_sshd.folder(), key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        agree(server)


@pytest.mark.parametrize("passphrase", ["", "open sesame"])
@pytest.mark.parametrize(
    ("kind", "options", "beside"),
    [
        ("rsa", "-m PEM", False),
        ("rsa", "-m PKCS8", True),
        ("ecdsa", "-m PEM", True),
        ("ecdsa", "-m PKCS8", False),
        ("ed25519", "-Z aes256-gcm@openssh.com", False),
        ("rsa", "-Z chacha20-poly1305@openssh.com", True),
        ("ecdsa", "-Z chacha20-poly1305@openssh.com", False),
    ],
)
def test_private_keys_are_read_in_every_format(
    new_sshd: SshdMaker, kind: str, options: str, passphrase: str, beside: bool
) -> None:
    server = new_sshd.make()
    (server.folder / "user").unlink()
    key = keygen(server.folder / "user", kind=kind)
    authorize(server, key)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", *options.split(), "-N", passphrase, "-f", key], check=True
    )
    if not beside:
        key.with_suffix(".pub").unlink()
    server.start()
    assert server.ssh_works() is (not passphrase)  # which can't ask
    told = Told()
    with tunnel_through(server, passphrase=passphrase, told=told):
        pass
    assert len(told.asked) == bool(passphrase)


def test_no_passphrase_is_asked_for_a_key_that_the_host_does_not_take(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    locked = keygen(tmp_path / "locked", passphrase="open sesame")
    server = new_sshd.make()
    text = server.client_config.read_text()
    server.client_config.write_text(
        text.replace("  IdentityFile", f"  IdentityFile {locked}\n  IdentityFile", 1)
    )
    server.start()
    told = Told()
    with tunnel_through(server, told=told):
        pass
    assert told.asked == []


def test_a_private_key_that_others_may_read_is_not_used(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    (server.folder / "user").chmod(0o644)
    error = agree(server, works=False)
    assert error is not None
    assert "ignored, since other accounts may read it (mode 644; chmod 600)" in error.message
    (server.folder / "user").chmod(0o600)
    agree(server)


def test_a_key_of_a_token_is_said_to_need_the_agent(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    name = "sk-ssh-ed25519@openssh.com"
    public = string(name) + string(bytes(32)) + string("ssh:")
    none = string("none") + string("none") + string("")
    body = b"openssh-key-v1\0" + none + bytes([0, 0, 0, 1]) + string(public) + string(bytes(64))
    marks = "-----{} OPENSSH PRIVATE KEY-----\n"
    key = server.folder / "user"
    key.write_text(marks.format("BEGIN") + base64.encodebytes(body).decode() + marks.format("END"))
    key.with_suffix(".pub").write_text(f"{name} {base64.b64encode(public).decode()}\n")
    server.start()
    with (
        pytest.raises(LoginRefused, match="has to be in the agent: ssh-add"),
        tunnel_through(server),
    ):
        pass


@pytest.mark.parametrize("written", ["{path}", "$MY_AGENT", "${{FOLDER}}/agent", "none"])
def test_the_agent_may_be_named(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    server = new_sshd.make()
    key = keygen(tmp_path / "held")
    authorize(server, key)
    server.start()
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with agent(new_sshd.folder(), key) as path:
        monkeypatch.setenv("MY_AGENT", path)
        monkeypatch.setenv("FOLDER", path.removesuffix("/agent"))
        text = server.client_config.read_text().replace("IdentitiesOnly yes", "IdentitiesOnly no")
        server.client_config.write_text(
            text.replace("IdentityAgent none", f"IdentityAgent {written.format(path=path)}")
        )
        agree(server, works=written != "none")


def test_an_agent_that_is_not_there_costs_nothing(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.start()
    with_agent(server)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    agree(server)


def test_two_keys_may_be_wanted(new_sshd: SshdMaker, tmp_path: Path) -> None:
    server = new_sshd.make(options="AuthenticationMethods publickey,publickey")
    second = keygen(tmp_path / "second", kind="ecdsa")
    server.start()
    error = agree(server, works=False)
    assert error is not None
    assert "takes the key and wants more: publickey" in error.message
    with (server.folder / "authorized_keys").open("a") as file:
        file.write(second.with_suffix(".pub").read_text())
    server.client_options = f"IdentityFile {second}"
    server.write_client_config()
    agree(server)


CODE = "123456"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="PAM with rules of its own needs root")


def with_code(server: Sshd, methods: str) -> Sshd:
    """The host asks for a code, as with two factors."""
    check = program(server.folder / "check", f'test "$(cat)" = {CODE}')
    server.pam = (
        f"auth required pam_exec.so quiet expose_authtok {check}\n"
        "account required pam_permit.so\nsession required pam_permit.so\n"
    )
    server.options = (
        "Match all\n  PermitRootLogin yes\n  KbdInteractiveAuthentication yes\n"
        f"  AuthenticationMethods {methods}\n"
    )
    return server.start()


@needs_root
@pytest.mark.parametrize("methods", ["publickey,keyboard-interactive", "keyboard-interactive"])
def test_what_the_host_asks_is_asked_of_the_user(new_sshd: SshdMaker, methods: str) -> None:
    server = with_code(new_sshd.make(), methods)
    told = Told()
    with tunnel_through(server, passphrase=CODE, told=told):
        pass
    assert [prompt.strip() for prompt in told.asked] == ["Password:"]
    wrong = Told()
    with pytest.raises(LoginRefused), tunnel_through(server, passphrase="wrong", told=wrong):
        pass
    assert len(wrong.asked) == 3
    server.client_options = "BatchMode yes"
    server.write_client_config()
    with (
        pytest.raises(LoginRefused, match=r"keyboard-interactive \(nobody can be asked\)"),
        tunnel_through(server, passphrase=CODE),
    ):
        pass


@needs_root
def test_the_banner_and_why_the_host_hangs_up_are_told(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    banner = server.folder / "banner"
    banner.write_text("Authorised use only.\n")
    server.options = f"Banner {banner}\nMaxAuthTries 1"
    server.start()
    told = Told()
    with tunnel_through(server, told=told) as tunnel:
        server.cut()
        eventually(lambda: len(told.changes) >= 3 and tunnel.state == "up", "connected again")
    assert told.notes == ["Authorised use only."]
    (server.folder / "authorized_keys").write_text("")
    server.client_options = f"IdentityFile {keygen(server.folder / 'second')}"
    server.write_client_config()
    with (
        pytest.raises(LoginRefused, match="saying: Too many authentication failures"),
        tunnel_through(server),
    ):
        pass
