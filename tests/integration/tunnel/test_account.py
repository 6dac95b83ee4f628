"""The account that can only forward to the pool: what sshd lets it do, and what not."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
import pytest

from socketpool.client.api import PoolClient
from socketpool.tunnel.account import KEY_OPTIONS
from socketpool.tunnel.failures import ForwardProhibited
from tests.support.pools import WEB, connects, run_tool
from tests.support.sshd import HOST
from tests.support.tunnels import echo, serving, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.tunnel.reconnect import Tunnel
    from tests.support.pools import PoolMaker, RunningPool
    from tests.support.sshd import Sshd, SshdMaker


DATA = Path(__file__).parents[2] / "data" / "webflow-site.zip"


def drop_in(pool_port: int, first: int, last: int) -> str:
    """What the command prints for the account that tests run as."""
    result = run_tool(
        *("socketpool", "sshd-config", f"{first}-{last}"),
        *("--port", pool_port, "--user", getpass.getuser()),
    )
    assert result.returncode == 0, result.stderr
    assert KEY_OPTIONS in result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def allowed() -> Iterator[int]:
    """A port that the account may reach."""
    with serving(echo) as port:
        yield port


@pytest.fixture(scope="module")
def server(allowed: int) -> Iterator[Sshd]:
    from tests.support.sshd import SshdMaker

    with SshdMaker() as maker:
        made = maker.make(options=drop_in(allowed, 21000, 21499))
        key = (made.folder / "user.pub").read_text()
        (made.folder / "authorized_keys").write_text(f"{KEY_OPTIONS} {key}")
        yield made.start()


@pytest.fixture
def tunnel(server: Sshd) -> Iterator[Tunnel]:
    with tunnel_through(server) as made:
        yield made


def test_the_pool_s_ports_can_be_reached(tunnel: Tunnel, allowed: int) -> None:
    with tunnel.dial(HOST, allowed) as stream:
        stream.sendall(b"ping")
        assert stream.recv(4) == b"ping"


@pytest.mark.parametrize("host", [HOST, "localhost", "127.0.0.2", "::1"])
def test_no_other_port_or_host_can(tunnel: Tunnel, server: Sshd, allowed: int, host: str) -> None:
    port = server.port if host == HOST else allowed
    with pytest.raises(ForwardProhibited) as caught:
        tunnel.dial(host, port)
    assert f"PermitOpen {host}:{port}" in caught.value.hint
    assert "AllowTcpForwarding local" in caught.value.hint


@pytest.mark.parametrize(
    "pool", [{"services_host": "127.0.0.2"}, {"host": "localhost"}, {"host": "::1"}], ids=str
)
def test_every_port_that_a_lease_names_can_be_reached(
    new_sshd: SshdMaker, new_pool: PoolMaker, pool: dict[str, Any]
) -> None:
    """Of a pool that runs: what its state directory says is what leases name."""
    made = new_pool.start({"web": WEB | {"warm": 1, "max": 2}}, **pool)
    printed = run_tool(
        *("socketpool", "sshd-config", "--state-dir", made.state, "--user", getpass.getuser())
    )
    assert printed.returncode == 0, printed.stderr
    server = new_sshd.start("there", printed.stdout)
    with tunnel_through(server) as tunnel:
        client = PoolClient(made.host, made.port, made.token, dial=tunnel.dial)
        lease = client.acquire(["web"], wait=30)
        (service,) = lease.services
        with tunnel.dial(service.host, service.port) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert stream.recv(5) == b"HTTP/"
        client.release(lease.id)
        client.close()


def test_there_is_no_session_for_a_shell_a_command_or_sftp(tunnel: Tunnel) -> None:
    with pytest.raises(paramiko.ChannelException):
        tunnel.link().transport.open_session(timeout=20)


@pytest.mark.parametrize(
    "command",
    [
        ["ssh", "there"],
        ["ssh", "there", "id"],
        ["ssh", "-s", "there", "sftp"],
        ["sftp", "there:/etc/hostname", "."],
        ["scp", "there:/etc/hostname", "."],
        ["scp", "-O", "there:/etc/hostname", "."],
    ],
    ids=" ".join,
)
def test_openssh_s_programs_get_nothing_either(
    server: Sshd, tmp_path: Path, command: list[str]
) -> None:
    command[1:1] = ["-F", str(server.client_config), "-o", "BatchMode=yes"]
    result = subprocess.run(
        command, cwd=tmp_path, input=b"", capture_output=True, timeout=60, check=False
    )
    assert result.returncode != 0
    assert result.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_nothing_can_be_made_to_listen_there(tunnel: Tunnel) -> None:
    with pytest.raises(paramiko.SSHException, match="forwarding request denied"):
        tunnel.link().transport.request_port_forward(HOST, 0)


def test_no_unix_socket_can_be_reached_or_made(server: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(3)
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        command: list[str | Path] = [
            "ssh",
            "-F",
            server.client_config,
            "-N",
            "-L",
            f"{HOST}:{port}:{path}",
            "there",
        ]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            eventually(lambda: connects(HOST, port), "the forwarding of ssh")
            with pytest.raises(TimeoutError):
                listener.accept()
            process.terminate()


def test_the_options_of_the_key_alone_already_allow_no_command(
    new_sshd: SshdMaker, tmp_path: Path
) -> None:
    server = new_sshd.make()
    key = (server.folder / "user.pub").read_text()
    (server.folder / "authorized_keys").write_text(f"{KEY_OPTIONS} {key}")
    server.start()
    with tunnel_through(server) as tunnel, serving(echo) as port:
        tunnel.dial(HOST, port).close()
    for command in (["ssh", "there", "id"], ["sftp", "there:/etc/hostname", str(tmp_path)]):
        command[1:1] = ["-F", str(server.client_config)]
        result = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
        assert result.returncode != 0
        assert result.stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_the_main_job_works_with_it_and_a_token_that_is_configured(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = shutil.copy(DATA, tmp_path)
    server = new_sshd.start("there", drop_in(trio.port, trio.ports.first, trio.ports.last))
    command = (
        *("socketpool_client", "--ssh", "there", "--ssh-config", server.client_config),
        *(trio.host, trio.port, archive, "upload", "vendor", "download"),
    )
    refused = run_tool(*command, "--state-dir", trio.state)
    assert refused.returncode == 5
    assert "--token-file" in refused.stderr
    result = run_tool(*command, "--token-file", trio.state / "token")
    assert result.returncode == 0, result.stderr
    assert "changed: 22 members" in result.stdout
