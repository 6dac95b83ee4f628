"""The way to a host as ssh_config describes it: jumps, proxy commands, includes."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from socketpool.errors import ConfigError
from socketpool.tunnel.failures import HostUnreachable, LoginRefused
from tests.support.sshd import HOST
from tests.support.tunnels import Told, echo, serving, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.tunnel.reconnect import Tunnel
    from tests.support.sshd import Sshd, SshdMaker


def say_ping(tunnel: Tunnel) -> None:
    with serving(echo) as port, tunnel.dial(HOST, port) as stream:
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"


def combine(last: Sshd, *others: Sshd) -> None:
    """One ssh_config for all of them."""
    last.client_config.write_text("".join(s.client_config.read_text() for s in (last, *others)))


def test_a_host_is_reached_through_others(new_sshd: SshdMaker) -> None:
    first, second = new_sshd.start("first"), new_sshd.start("second")
    last = new_sshd.make("last", client_options="ProxyJump first,second").start()
    combine(last, first, second)
    with tunnel_through(last) as tunnel:
        say_ping(tunnel)
    assert all("Accepted publickey" in server.log for server in (first, second, last))


def test_a_jump_may_have_a_jump_of_its_own(new_sshd: SshdMaker) -> None:
    first = new_sshd.start("first")
    second = new_sshd.make("second", client_options="ProxyJump first").start()
    last = new_sshd.make("last", client_options="ProxyJump second").start()
    combine(last, first, second)
    with tunnel_through(last) as tunnel:
        say_ping(tunnel)
    assert "Accepted publickey" in first.log


def test_jumps_in_a_circle_are_refused(new_sshd: SshdMaker) -> None:
    first = new_sshd.make("first", client_options="ProxyJump last")
    last = new_sshd.make("last", client_options="ProxyJump first")
    combine(last, first)
    with pytest.raises(ConfigError, match="jumps"), tunnel_through(last):
        pass


def test_a_jump_that_is_lost_is_made_again_with_what_lies_behind(new_sshd: SshdMaker) -> None:
    first = new_sshd.start("first")
    last = new_sshd.make("last", client_options="ProxyJump first").start()
    combine(last, first)
    told = Told()
    with tunnel_through(last, told=told) as tunnel:
        first.cut()
        eventually(lambda: [s for s, _ in told.changes] == ["up", "reconnecting", "up"], "again")
        say_ping(tunnel)


def test_a_jump_that_refuses_is_named_and_nothing_stays_open(new_sshd: SshdMaker) -> None:
    first = new_sshd.start("first", "AllowTcpForwarding no")
    last = new_sshd.make("last", client_options="ProxyJump first").start()
    combine(last, first)
    with (
        pytest.raises(HostUnreachable, match=r"through .*127\.0\.0\.1:\d+.*does not let"),
        tunnel_through(last),
    ):
        pass
    eventually(lambda: not first.sessions(), "the first connection's end")


def carrier(tmp_path: Path) -> Path:
    """A program that a ProxyCommand may be; it carries its standard input and output."""
    carry = tmp_path / "carry.py"
    carry.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536):\n"
        "        s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536):\n"
        "    os.write(1, data)\n"
    )
    return carry


@pytest.mark.parametrize(
    "command",
    [
        "{carry} %h %p",
        "exec {carry} %h %p",
        "{carry} \"%h\" '%p' 2>/dev/null",
        "{carry} $NOTHING %h %p | cat",
        "{carry} ${{WHERE}} %p",
    ],
)
def test_a_proxy_command_is_run_by_the_shell_and_ended(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("WHERE", HOST)
    monkeypatch.setenv("SHELL", "/bin/sh")
    command = command.format(carry=f"{sys.executable} {carrier(tmp_path)}")
    server = new_sshd.make(client_options=f"ProxyCommand {command}").start()
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with tunnel_through(server) as tunnel:
        say_ping(tunnel)
        started = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.pid not in before and str(tmp_path) in " ".join(process.cmdline())
        ]
        assert started
        # Ctrl-C at the terminal is for the program that uses the tunnel.
        assert all(os.getpgid(process.pid) != os.getpgrp() for process in started)
    psutil.wait_procs(started, 10)
    assert not any(process.is_running() for process in started)


def test_a_proxy_command_that_does_not_exist_is_said_to(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(client_options="ProxyCommand /no/such/program %h")
    with pytest.raises(HostUnreachable, match="ProxyCommand"), tunnel_through(server):
        pass


def test_a_proxy_command_that_ends_at_once_is_said_to(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(client_options="ProxyCommand /bin/false")
    with pytest.raises(HostUnreachable, match="not answer as an SSH"), tunnel_through(server):
        pass


def test_include_and_match_are_read_as_openssh_reads_them(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.start()
    included = tmp_path / "included"
    included.write_text(
        server.client_config.read_text().replace(
            "Host there", 'Match originalhost there exec "true"'
        )
    )
    server.client_config.write_text(f"Include {included}\nMatch final host nowhere\n  Port 1\n")
    with tunnel_through(server) as tunnel:
        say_ping(tunnel)


def test_tokens_and_variables_are_expanded(
    new_sshd: SshdMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_sshd.start()
    monkeypatch.setenv("KEYS", str(tmp_path))
    shutil.copy(server.folder / "user", tmp_path / f"key-there-{server.port}")
    text = server.client_config.read_text()
    server.client_config.write_text(text.replace(f"{server.folder}/user", "${KEYS}/key-%n-%p"))
    with tunnel_through(server) as tunnel:
        say_ping(tunnel)


def test_options_that_are_not_obeyed_are_named_once(new_sshd: SshdMaker) -> None:
    server = new_sshd.make(
        client_options="Compression yes\n  VerifyHostKeyDNS ask\n  SendEnv LANG\n  ForwardAgent yes"
    )
    server.start()
    told = Told()
    with tunnel_through(server, told=told):
        server.cut()
        eventually(lambda: len(told.changes) >= 3, "connected again")
    (note,) = told.notes
    assert note.endswith("not obeyed: verifyhostkeydns")


def test_without_the_ssh_program_most_is_read_and_the_rest_is_named(
    new_sshd: SshdMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = new_sshd.start("first")
    last = new_sshd.make("last", client_options="ProxyJump first\n  VerifyHostKeyDNS ask").start()
    combine(last, first)
    with last.client_config.open("a") as file:
        file.write(f'Include {tmp_path}/more\nMatch host nowhere exec "false"\n  Port 1\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    told = Told()
    with tunnel_through(last, told=told) as tunnel:
        say_ping(tunnel)
    assert "Include, Match exec" in told.notes[0]
    assert "verifyhostkeydns" in told.notes[1]
    assert len(told.notes) == 2


def test_a_config_that_ssh_can_t_read_is_said_with_its_words(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    server.client_config.write_text("Host there\n  Nonsense yes\n")
    with pytest.raises(ConfigError, match="nonsense"), tunnel_through(server):
        pass


def test_a_host_that_nobody_listens_at_or_that_is_no_sshd_is_said_to(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    with pytest.raises(HostUnreachable, match="no sshd listens"), tunnel_through(server):
        pass
    server.client_options = "ConnectTimeout 2"
    with serving(lambda connection: connection.sendall(b"HTTP/1.1 400 No\r\n\r\n")) as port:
        server.port = port
        server.write_client_config()
        with pytest.raises(HostUnreachable, match="not answer as an SSH"), tunnel_through(server):
            pass
    server.client_config.write_text("Host there\n  HostName no-such-host.invalid\n")
    with pytest.raises(HostUnreachable, match="can't be resolved"), tunnel_through(server):
        pass


def test_a_network_without_a_way_there_is_said_to_have_none(new_sshd: SshdMaker) -> None:
    server = new_sshd.make()
    text = server.client_config.read_text()
    # An address that no packet can be sent to: reserved, RFC 1112.
    server.client_config.write_text(text.replace(f"HostName {HOST}", "HostName 255.255.255.255"))
    with (
        pytest.raises(HostUnreachable, match=r"no route to 255\.255\.255\.255 port"),
        tunnel_through(server),
    ):
        pass


def test_a_wrong_user_is_refused_in_words(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    text = server.client_config.read_text()
    server.client_config.write_text(text.replace("User ", "User no-such-"))
    with pytest.raises(LoginRefused, match="no-such-"), tunnel_through(server):
        pass
