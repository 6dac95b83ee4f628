"""Hosts that go silent, die or come back: the tunnel notices, and is there again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from socketpool.tunnel.failures import HostKeyRefused, TunnelDown
from socketpool.tunnel.reconnect import DIAL_SECONDS
from tests.support.sshd import keygen
from tests.support.tunnels import HOST, Told, echo, serving, take_all, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.tunnel.reconnect import Tunnel
    from tests.support.sshd import SshdMaker

QUICK = "ServerAliveInterval 1\n  ServerAliveCountMax 2\n  ConnectTimeout 2"


def states(told: Told) -> list[str]:
    """Each state once it was entered."""
    found = [str(state) for state, _ in told.changes]
    return [s for number, s in enumerate(found) if not number or found[number - 1] != s]


def say_ping(tunnel: Tunnel, port: int, host: str = HOST) -> None:
    with tunnel.dial(host, port) as stream:
        stream.settimeout(30)
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"


def test_a_host_that_says_nothing_any_more_is_given_up_and_tried_again(
    new_sshd: SshdMaker,
) -> None:
    server = new_sshd.make(client_options=QUICK).start()
    told = Told()
    with tunnel_through(server, told=told) as tunnel, serving(echo) as port:
        stream = tunnel.dial(HOST, port)
        frozen = server.sessions()
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        with pytest.raises(ConnectionResetError):
            stream.recv(1)
        eventually(lambda: states(told) == ["up", "reconnecting", "up"], "connected again")
        say_ping(tunnel, port)
        for process in frozen:
            process.kill()


def test_a_host_that_is_only_busy_is_not_given_up(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(client_options=QUICK).start()
    told = Told()
    with tunnel_through(server, told=told) as tunnel, serving(echo) as port:
        stream = tunnel.dial(HOST, port)
        stream.settimeout(5)
        with pytest.raises(TimeoutError):
            stream.recv(1)  # more than twice as long as silence would be borne
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"
    assert states(told) == ["up", "closed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace needs root")
def test_a_network_that_swallows_everything_is_noticed_and_survived(new_sshd: SshdMaker) -> None:
    with namespace() as (name, ours, theirs):
        server = new_sshd.make(client_options=QUICK, host=theirs)
        server.prefix = ["ip", "netns", "exec", name]
        server.start()
        told = Told()
        inside = ["ip", "netns", "exec", name, "ip", "route"]
        eventually(lambda: f"listening on {theirs}" in server.log, "sshd")
        with tunnel_through(server, told=told) as tunnel:
            stream = tunnel.dial(theirs, server.port)
            assert stream.recv(4) == b"SSH-"
            subprocess.run([*inside, "add", "blackhole", f"{ours}/32"], check=True)
            with pytest.raises(ConnectionResetError):
                take_all(stream)
            eventually(
                lambda: any("not answer within 2 s" in why for _, why in told.changes), "a try"
            )
            subprocess.run([*inside, "del", "blackhole", f"{ours}/32"], check=True)
            eventually(lambda: tunnel.state == "up", "connected again", 60)
            with tunnel.dial(theirs, server.port) as again:
                assert again.recv(4) == b"SSH-"


@contextlib.contextmanager
def namespace() -> Iterator[tuple[str, str, str]]:
    """A network namespace with an address of its own, and ours towards it."""
    number = random.randrange(1 << 14)
    name, near, far = f"sptest{number}", f"spn{number}", f"spf{number}"
    ours, theirs = f"10.{200 + (number >> 8) % 50}.{number & 255}.1", ""
    theirs = ours[:-1] + "2"

    def run(*words: str) -> None:
        subprocess.run(words, check=True)

    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("ip", "addr", "add", f"{ours}/24", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", name, "addr", "add", f"{theirs}/24", "dev", far)
        run("ip", "-n", name, "link", "set", far, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name, ours, theirs
    finally:
        run("ip", "netns", "del", name)


def test_new_streams_wait_for_a_host_that_restarts(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    told = Told()
    with tunnel_through(server, told=told) as tunnel, serving(echo) as port:
        server.kill()
        eventually(lambda: tunnel.state == "reconnecting", "the loss")
        threading.Timer(1.5, server.start).start()
        say_ping(tunnel, port)
        say_ping(tunnel, port)
    assert states(told) == ["up", "reconnecting", "up", "closed"]


def test_new_streams_don_t_wait_for_ever(
    new_sshd: SshdMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DIAL_SECONDS <= 60
    monkeypatch.setattr("socketpool.tunnel.reconnect.DIAL_SECONDS", 0.5)
    server = new_sshd.start()
    with tunnel_through(server) as tunnel:
        server.kill()
        eventually(lambda: tunnel.state == "reconnecting", "the loss")
        with pytest.raises(TunnelDown, match="is down"):
            tunnel.dial(HOST, 1)


def test_a_host_that_comes_back_with_another_key_is_not_tried_again(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    told = Told()
    with tunnel_through(server, told=told) as tunnel:
        server.kill()
        (server.folder / "host_ed25519").unlink()
        keygen(server.folder / "host_ed25519")
        server.start()
        eventually(lambda: tunnel.state == "refused", "the refusal")
        with pytest.raises(HostKeyRefused, match="not the one that is known"):
            tunnel.dial(HOST, 1)
    assert states(told) == ["up", "reconnecting", "refused", "closed"]


def test_a_closed_tunnel_leaves_no_thread_and_no_descriptor(new_sshd: SshdMaker) -> None:
    from tests.support.tunnels import descriptors

    server = new_sshd.make(client_options=QUICK).start()
    with tunnel_through(server):
        pass  # whatever is opened once
    threads, files = threading.active_count(), descriptors()
    for _ in range(10):
        with tunnel_through(server) as tunnel, serving(echo) as port:
            say_ping(tunnel, port)
            server.cut()
            eventually(lambda: tunnel.state == "up", "connected again")
    eventually(lambda: threading.active_count() <= threads, f"no more than {threads} threads")
    eventually(lambda: descriptors() <= files, f"no more than {files} descriptors")
    eventually(lambda: not server.sessions(), "no connection at the host")
