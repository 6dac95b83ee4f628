"""Hosts are recognised, or refused with what to do about it."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest

from socketpool.config.destination import Destination
from socketpool.errors import ConfigError, SocketpoolError
from socketpool.tunnel.failures import HostKeyRefused, HostUnreachable
from socketpool.tunnel.hostkeys import HostKey
from socketpool.tunnel.hostsettings import home
from socketpool.tunnel.recognition import Recognition
from socketpool.tunnel.sshconfig import resolve
from tests.support.sshd import HOST, keygen
from tests.support.tunnels import Told, tunnel_through

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sshd import Sshd, SshdMaker


def fingerprint(public: Path) -> str:
    shown = subprocess.run(
        ["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[1]


def refusal(server: Sshd, **options: Any) -> HostKeyRefused:
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


# -- beside OpenSSH's own client ------------------------------------------------------------------


def agree(server: Sshd, *, works: bool) -> SocketpoolError | None:
    """Both clients get in, or neither does; gives the reason of ours."""
    assert server.ssh_works() is works
    if works:
        with tunnel_through(server):
            return None
    with (
        pytest.raises((HostKeyRefused, ConfigError, HostUnreachable)) as caught,
        tunnel_through(server),
    ):
        pass
    return caught.value


def public(path: Path) -> str:
    return path.with_suffix(".pub").read_text()


def revoke(server: Sshd, how: str, folder: Path) -> Path:
    """A file for RevokedHostKeys."""
    path = folder / "revoked keys"
    key = server.folder / "host_ed25519.pub"
    other = keygen(folder / "other")
    match how:
        case "a list":
            path.write_text(f"# ours\n\n{public(other)}{key.read_text()}")
        case "a list of others":
            path.write_text(public(other))
        case "garbage":
            path.write_text("no key at all\n")
        case "a list of revocations":
            subprocess.run(["ssh-keygen", "-q", "-k", "-f", path, key], check=True)
        case "of others":
            subprocess.run(["ssh-keygen", "-q", "-k", "-f", path, f"{other}.pub"], check=True)
        case "by digest":
            (folder / "specification").write_text(f"hash: {fingerprint(key)}\n")
            subprocess.run(
                ["ssh-keygen", "-q", "-k", "-f", path, folder / "specification"], check=True
            )
        case "cut short":
            subprocess.run(["ssh-keygen", "-q", "-k", "-f", path, key], check=True)
            path.write_bytes(path.read_bytes()[:-5])
    return path


@pytest.mark.parametrize(
    ("how", "works"),
    [
        ("a list", False),
        ("a list of others", True),
        ("garbage", False),
        ("a list of revocations", False),
        ("of others", True),
        ("by digest", False),
        ("cut short", False),
        ("no file", False),
    ],
)
def test_revoked_host_keys_are_refused_as_ssh_does(
    new_sshd: SshdMaker, tmp_path: Path, how: str, works: bool
) -> None:
    server = new_sshd.make()
    path = revoke(server, how, tmp_path)
    server.client_options = f'RevokedHostKeys "{path}"'
    server.write_client_config()
    server.start()
    reason = agree(server, works=works)
    if reason is not None:
        assert f"RevokedHostKeys {path}" in reason.message + reason.hint


AUTHORITY = "@cert-authority"


@pytest.mark.parametrize(
    ("options", "works", "reason"),
    [
        ("-n 127.0.0.1", True, ""),
        ("", True, ""),
        ("-n other,127.0.0.1", True, ""),
        ("-n 127.*", False, "it is for 127.*"),
        ("-n elsewhere", False, "it is for elsewhere"),
        ("-n 127.0.0.1 -V -2d:-1d", False, "it has expired"),
        ("-n 127.0.0.1 -V +1d:+2d", False, "it is not valid yet"),
        ("-n 127.0.0.1 -z 7", False, "is revoked"),
        ("for a user -n 127.0.0.1", False, "it is for a user"),
        ("by another", False, "which is not trusted"),
        ("the authority revoked", False, "is revoked"),
        ("other signatures", False, "signed with ssh-ed25519"),
    ],
)
def test_certificates_of_hosts_are_trusted_as_ssh_does(
    new_sshd: SshdMaker, tmp_path: Path, options: str, works: bool, reason: str
) -> None:
    server = new_sshd.make()
    (server.folder / "host_ed25519").unlink()
    key = keygen(server.folder / "host_ed25519", kind="rsa" if "-V" in options else "ed25519")
    authority, other = keygen(tmp_path / "authority"), keygen(tmp_path / "other")
    said, _, words = ("", "", options) if options.startswith("-") else options.partition(" -")
    signing = f"-{words}".split() if said and words else words.split()
    signer = str(other if said == "by another" else authority)
    command = ["ssh-keygen", "-q", "-I", "us", "-s", signer]
    command += [] if said == "for a user" else ["-h"]
    subprocess.run([*command, *signing, f"{key}.pub"], check=True)
    server.options = f"HostCertificate {key}-cert.pub"
    server.known_hosts.write_text(f"{AUTHORITY} [{HOST}]:* {public(authority)}")
    if said == "the authority revoked":
        with server.known_hosts.open("a") as file:
            file.write(f"@revoked * {public(authority)}")
    revoked = tmp_path / "krl"
    (tmp_path / "serials").write_text("serial: 5-9\n")
    subprocess.run(
        ["ssh-keygen", "-q", "-k", "-f", revoked, "-s", f"{authority}.pub", tmp_path / "serials"],
        check=True,
    )
    server.client_options = f"RevokedHostKeys {revoked}"
    if said == "other signatures":
        server.client_options += "\n  CASignatureAlgorithms rsa-sha2-512"
    server.write_client_config()
    server.start()
    error = agree(server, works=works)
    if error is not None:
        assert reason in error.message


def test_a_host_s_key_is_known_although_its_certificate_isn_t(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.make()
    key = server.folder / "host_ed25519"
    subprocess.run(
        ["ssh-keygen", "-q", "-h", "-I", "us", "-s", keygen(tmp_path / "ca"), f"{key}.pub"],
        check=True,
    )
    server.options = f"HostCertificate {key}-cert.pub"
    server.start()
    agree(server, works=True)


@pytest.mark.parametrize("works", [True, False])
def test_what_a_known_hosts_command_prints_is_known(
    new_sshd: SshdMaker, tmp_path: Path, works: bool
) -> None:
    server = new_sshd.make()
    program = tmp_path / "known hosts"
    line = server.known_hosts.read_text().split()[1:]
    end = 'test "$1" = ORDER || test "$2" = ssh-ed25519\n' if works else "exit 1\n"
    program.write_text(f'#!/bin/sh\necho "$3" {" ".join(line)}\n{end}')
    program.chmod(0o755)
    server.known_hosts.unlink()
    server.client_options = f'KnownHostsCommand "{program}" %I %t %H'
    server.write_client_config()
    server.start()
    error = agree(server, works=works)
    assert error is None or "KnownHostsCommand" in error.message


def test_without_a_known_hosts_file_nothing_is_known_and_nothing_written(
    new_sshd: SshdMaker,
) -> None:
    server = new_sshd.start()
    mine = home() / ".ssh" / "known_hosts"
    before = mine.read_bytes() if mine.exists() else None
    text = server.client_config.read_text()
    server.client_config.write_text(
        text.replace(f"UserKnownHostsFile {server.known_hosts}", "UserKnownHostsFile none")
    )
    error = agree(server, works=False)
    assert error is not None
    assert "is not known" in error.message
    told = Told()
    with tunnel_through(server, accept_new=True, told=told):
        pass
    assert "no file remembers it" in told.notes[0]
    assert (mine.read_bytes() if mine.exists() else None) == before


def test_files_that_can_t_be_read_are_passed_over_and_paths_may_have_spaces(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.start()
    mine = server.known_hosts.rename(tmp_path / "my known hosts")
    text = server.client_config.read_text()
    server.client_config.write_text(
        text.replace(str(server.known_hosts), f'{tmp_path} "{mine}" {tmp_path}/none')
    )
    agree(server, works=True)
    mine.unlink()
    error = agree(server, works=False)
    assert error is not None
    assert f"{tmp_path}: Is a directory" in error.message


def test_a_host_that_is_known_without_its_port_is_known(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    _, *key = server.known_hosts.read_text().split()
    server.known_hosts.write_text(f"{HOST} {' '.join(key)}\n")
    agree(server, works=True)
    server.known_hosts.write_text(f"{HOST} {public(server.folder / 'user')}")
    agree(server, works=False)


def test_a_key_that_differs_from_the_address_s_is_refused_if_they_are_compared(
    new_sshd: SshdMaker,
) -> None:
    server = new_sshd.make(client_options="CheckHostIP yes")
    with server.known_hosts.open("a") as file:
        file.write(f"[192.0.2.1]:{server.port} {public(server.folder / 'user')}")
    settings = resolve(Destination.parse(server.alias), server.client_config)
    shown = HostKey(*load(server.folder / "host_ed25519.pub"))
    recognition = Recognition.of(settings)
    recognition.check(shown, "192.0.2.2", accept_new=False)
    recognition.check(shown, None, accept_new=False)
    with pytest.raises(HostKeyRefused, match=r"not the one of its address 192\.0\.2\.1"):
        recognition.check(shown, "192.0.2.1", accept_new=False)


def load(public: Path) -> tuple[str, bytes]:
    kind, key, *_ = public.read_text().split()
    return kind, base64.b64decode(key)


def test_an_rsa_key_of_a_host_may_be_too_small(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(client_options="RequiredRSASize 4096")
    (server.folder / "host_ed25519").unlink()
    keygen(server.folder / "host_ed25519", kind="rsa")
    server.trust()
    server.start()
    error = agree(server, works=False)
    assert error is not None
    assert "RequiredRSASize" in error.hint


@pytest.mark.parametrize("value", ["accept-new", "no"])
def test_the_configuration_may_have_new_keys_accepted_but_not_changed_ones(
    new_sshd: SshdMaker, value: str
) -> None:
    """Where it says no, ssh itself would go on with a changed key: here that is never done."""
    server = new_sshd.make(client_options=f"StrictHostKeyChecking {value}")
    server.known_hosts.unlink()
    server.start()
    with tunnel_through(server):
        pass
    assert f"[{HOST}]:{server.port}" in server.known_hosts.read_text()
    server.known_hosts.write_text(f"[{HOST}]:{server.port} {public(server.folder / 'user')}")
    assert "is not the one that is known" in refusal(server).message


@pytest.mark.parametrize("option", ["PubkeyAuthentication host-bound", "ProxyUseFdpass yes"])
def test_an_option_that_may_protect_and_is_not_obeyed_refuses_the_connection(
    new_sshd: SshdMaker, option: str
) -> None:
    server = new_sshd.make(client_options=option).start()
    with pytest.raises(ConfigError) as caught, tunnel_through(server):
        pass
    assert option.split(maxsplit=1)[0].lower() in caught.value.message
    assert "Accepted publickey" not in server.log


def test_algorithms_that_the_configuration_chooses_are_used(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(
        client_options="Ciphers aes256-ctr\n  MACs hmac-sha2-512\n"
        "  KexAlgorithms ecdh-sha2-nistp384\n  HostKeyAlgorithms ssh-ed25519"
    ).start()
    with tunnel_through(server) as tunnel:
        transport = cast("Any", tunnel.link().transport)  # its stubs lack the attributes
        assert (transport.local_cipher, transport.remote_mac) == ("aes256-ctr", "hmac-sha2-512")
    server.client_options = "Ciphers aes256-cbc"
    server.write_client_config()
    with (
        pytest.raises(ConfigError, match="Ciphers that the ssh_config allows"),
        tunnel_through(server),
    ):
        pass
