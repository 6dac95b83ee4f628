"""The documented account on a stock Debian, in a container: installed as docs/tunnel.md says."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from socketpool.tunnel.account import DEFAULT_USER, KEY_OPTIONS
from socketpool.tunnel.failures import ForwardProhibited
from tests.support.pools import run_tool
from tests.support.sshd import CLIENT, HOST, Sshd, keygen
from tests.support.tunnels import Told, take_all, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.client.dial import Connection

IMAGE = "socketpool-test/target:bookworm"
LABEL = "socketpool-test=tunnel"
QUICK = "  ServerAliveInterval 2\n  ServerAliveCountMax 5\n  ConnectTimeout 10"
START = f"""
useradd --system --create-home --shell /usr/sbin/nologin {DEFAULT_USER}
install -d -m 0700 -o {DEFAULT_USER} -g {DEFAULT_USER} ~{DEFAULT_USER}/.ssh
install -m 0600 -o {DEFAULT_USER} -g {DEFAULT_USER} /root/keys ~{DEFAULT_USER}/.ssh/authorized_keys
install -d /run/sshd
ssh-keygen -A
sshd -t
cd /usr/share/doc
python3 -m http.server --bind 127.0.0.1 8080 &
python3 -m http.server --bind 127.0.0.1 9090 &
exec /usr/sbin/sshd -D -e
"""


def docker(*arguments: object) -> str:
    command = ["docker", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A running container of ours; its id."""
    stale = docker("ps", "-aq", "--filter", f"label={LABEL}").split()
    if stale:
        docker("rm", "-f", *stale)
    made = docker(
        *("create", "--label", LABEL, "--publish", f"{HOST}::22"),
        *(IMAGE, "sh", "-euc", START),
    ).strip()
    yield made
    docker("rm", "-f", made)


@pytest.fixture(scope="module")
def server(container: str) -> Iterator[Sshd]:
    """The container's sshd with the account in place, and what a client needs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = keygen(folder / "user")
        (folder / "keys").write_text(f"{KEY_OPTIONS} {key.with_suffix('.pub').read_text()}")
        drop_in = run_tool("socketpool", "sshd-config", "21000-21499")
        (folder / "drop-in").write_text(drop_in.stdout)
        docker("cp", folder / "keys", f"{container}:/root/keys")
        docker(
            *("cp", folder / "drop-in"),
            f"{container}:/etc/ssh/sshd_config.d/socketpool-tunnel.conf",
        )
        docker("start", container)
        port = int(docker("port", container, "22").split()[0].rpartition(":")[2])
        eventually(lambda: "Server listening" in logs(container), "sshd in the container")
        host_key = docker("exec", container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        made = Sshd(folder, port, "there")
        made.known_hosts.write_text(f"[{HOST}]:{port} {host_key}")
        values = {"alias": "there", "host": HOST, "port": port, "folder": folder}
        made.client_config.write_text(CLIENT.format(**values, user=DEFAULT_USER, options=QUICK))
        yield made


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def get(stream: Connection) -> bytes:
    stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
    return take_all(stream)


def test_the_account_reaches_the_pool_s_ports_and_nothing_else(server: Sshd) -> None:
    with tunnel_through(server) as tunnel:
        with contextlib.closing(tunnel.dial(HOST, 8080)) as stream:
            assert b"200 OK" in get(stream)
        for host, port in ((HOST, 9090), (HOST, 22), ("localhost", 8080), ("0.0.0.0", 8080)):
            with pytest.raises(ForwardProhibited):
                tunnel.dial(host, port)
        with pytest.raises(paramiko.ChannelException):
            tunnel.link().transport.open_session(timeout=20)
        with pytest.raises(paramiko.SSHException, match="forwarding request denied"):
            tunnel.link().transport.request_port_forward(HOST, 0)


def test_a_host_that_dies_is_no_clean_end(server: Sshd, container: str) -> None:
    """The last test: nothing is left of the container."""
    told = Told()
    with tunnel_through(server, told=told) as tunnel:
        stream = tunnel.dial(HOST, 8080)
        docker("kill", container)
        with pytest.raises(ConnectionResetError):
            stream.recv(1)
        eventually(lambda: tunnel.state == "reconnecting", "the loss")
