"""Hosts that agree on little, say something else, or are slow: each is told in its own words."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from socketpool.config.destination import Destination
from socketpool.errors import UsageError
from socketpool.tunnel.failures import HostUnreachable, LoginRefused
from socketpool.tunnel.sshconfig import resolve
from tests.support.sshd import HOST
from tests.support.tunnels import Told, echo, serving, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.sshd import Sshd, SshdMaker


def refusal(server: Sshd) -> HostUnreachable:
    with pytest.raises(HostUnreachable) as caught, tunnel_through(server):
        pass
    return caught.value


@pytest.mark.parametrize(
    "options",
    [
        "Ciphers chacha20-poly1305@openssh.com",
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms curve25519-sha256@libssh.org",
        "KexAlgorithms diffie-hellman-group-exchange-sha256",
        "MACs hmac-sha1\nCiphers aes128-ctr",
        "HostKeyAlgorithms ssh-ed25519",
    ],
)
def test_a_host_that_offers_one_algorithm_only_is_met(new_sshd: SshdMaker, options: str) -> None:
    server = new_sshd.start("there", options)
    assert server.ssh_works()
    with tunnel_through(server) as tunnel, serving(echo) as port, tunnel.dial(HOST, port) as stream:
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "no key exchange in common"),
        ("MACs umac-64@openssh.com\nCiphers aes128-ctr", "no MAC in common"),
    ],
)
def test_where_nothing_is_in_common_both_offers_are_listed(
    new_sshd: SshdMaker, options: str, what: str
) -> None:
    error = refusal(new_sshd.start("there", options))
    offered = options.split()[1]
    assert f"{what}: it offers {offered}" in error.message
    assert "here are " in error.message


def test_a_host_with_too_many_logins_at_once_is_said_to_have_them(new_sshd: SshdMaker) -> None:
    server = new_sshd.start("there", "PerSourceMaxStartups 1")

    def greeted() -> socket.socket | None:
        first = socket.create_connection((HOST, server.port))
        if first.recv(4) == b"SSH-":
            return first
        first.close()
        return None

    # The connection by which the server was seen to run may still count.
    first = eventually(greeted, "a connection that counts")
    assert first is not None
    with first:
        error = refusal(server)
    assert "too many connections that are logging in" in error.message
    assert "try again in a moment" in error.hint


def say(data: bytes, seconds: float = 0) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.sendall(data)
        time.sleep(seconds)

    return handle


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (say(b""), "it closed the connection without a word"),
        (say(b"Not allowed at this time\r\n"), "refuses this address for a while"),
        (say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it says 'HTTP/1.1 400 Bad Request'"),
        (say(b"x" * 100_000, 20), "does not answer as an SSH server"),
        (say(b"", 20), "has not greeted as sshd does within 2 s"),
        (say(b"SSH-2.0-slow\r\n", 20), "has not begun the key exchange within 2 s"),
        (say(b"SSH-1.5-old\r\n", 20), "Incompatible version"),
        (say(b"SSH-2.0-garbage\r\n\0\0\0\0garbage", 20), "does not answer as an SSH server"),
    ],
    ids=["nothing", "penalty", "http", "endless", "silence", "slow", "old", "garbage"],
)
def test_what_is_no_ssh_server_or_a_slow_one_is_told_in_its_own_words(
    new_sshd: SshdMaker, handle: Callable[[socket.socket], None], message: str
) -> None:
    server = new_sshd.make(client_options="ConnectTimeout 2")
    with serving(handle) as port:
        server.port = port
        server.write_client_config()
        assert message in refusal(server).message


def test_lines_before_the_greeting_are_shown(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    real = server.port

    def relay(connection: socket.socket) -> None:
        connection.sendall(b"This gateway is watched.\r\n")
        with socket.create_connection((HOST, real)) as host, contextlib.ExitStack() as stack:

            def up() -> None:
                with contextlib.suppress(OSError):
                    while data := connection.recv(65536):
                        host.sendall(data)

            thread = threading.Thread(target=up)
            thread.start()
            stack.callback(thread.join)
            stack.callback(lambda: connection.shutdown(socket.SHUT_RDWR))
            while data := host.recv(65536):
                connection.sendall(data)

    told = Told()
    with serving(relay) as port:
        server.port = port
        server.trust()
        server.write_client_config()
        with tunnel_through(server, told=told):
            pass
    assert told.notes == ["This gateway is watched."]


@pytest.mark.parametrize(
    "text",
    [
        "there",
        "me@there",
        "ACME\\bob@there",
        "carol@corp.example@there",
        "ssh://there",
        "ssh://there:2222",
        "ssh://there:2222/",
        "ssh://carol%40corp@there:22",
        "carol%40corp@there",
        "a b@there",
    ],
)
def test_destinations_mean_what_they_mean_to_ssh(new_sshd: SshdMaker, text: str) -> None:
    server = new_sshd.make()
    config = "".join(
        line
        for line in server.client_config.read_text().splitlines(keepends=True)
        if "User " not in line and "Port" not in line
    )
    server.client_config.write_text(config)
    said = server.ssh_config_of(text)
    settings = resolve(Destination.parse(text), server.client_config)
    found = (settings.hostname, settings.user, str(settings.port))
    assert found == (said["hostname"], said["user"], said["port"])


@pytest.mark.parametrize("text", ["a'b@there", "$(id)@there", "-lroot@there", "ssh://there/path"])
def test_destinations_that_ssh_refuses_are_refused(new_sshd: SshdMaker, text: str) -> None:
    server = new_sshd.make()
    assert not server.ssh_config_of(text)
    with pytest.raises(UsageError):
        Destination.parse(text)


def test_a_user_with_a_domain_arrives_as_written(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    text = server.client_config.read_text()
    server.client_config.write_text("\n".join(x for x in text.splitlines() if "User " not in x))
    for user in ("ACME\\bob", "carol@corp.example"):
        server.alias = f"{user}@there"
        with pytest.raises(LoginRefused), tunnel_through(server):
            pass
        assert f"Invalid user {user.replace(chr(92), chr(92) * 2)} from" in server.log
