"""``socketpool tunnel`` and profiles, as a user runs them."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import socket
import struct
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from socketpool.cli.tunnel import tunnel as tunnel_command
from socketpool.tunnel.failures import TunnelFailed
from socketpool.tunnel.link import Link
from tests.support.pools import TOOLS, WEB, PoolMaker, clean_environment, run_tool
from tests.support.sshd import keygen
from tests.support.startstate import FRESH, odd_signals, read_report, reporter
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool
    from tests.support.sshd import Sshd, SshdMaker

DATA = Path(__file__).parents[2] / "data" / "webflow-site.zip"
FETCH = (
    "import os, sys, urllib.request as u\n"
    "url = 'http://' + os.environ['WEB_HOST'] + ':' + os.environ['WEB_PORT']\n"
    "print(u.urlopen(url).status, os.environ['SOCKETPOOL_LEASE'] != '')\n"
    "sys.exit(3)\n"
)


@pytest.fixture(scope="module")
def web() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start({"web": WEB | {"warm": 2, "max": 4}})


@pytest.fixture
def server(new_sshd: SshdMaker) -> Sshd:
    return new_sshd.start()


def options(server: Sshd, pool: RunningPool) -> list[object]:
    return [
        *("--ssh-config", server.client_config, "--pool", f"{pool.host}:{pool.port}"),
        *("--token-file", pool.state / "token"),
    ]


class Running:
    """The command at work; its events as they come."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [TOOLS / "socketpool", "tunnel", *map(str, arguments), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env or clean_environment(Path("/tmp")),
        )

    def event(self, wanted: str, **fields: str) -> dict[str, Any]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == wanted and fields.items() <= event.items():
                return event
        raise AssertionError(f"ended without {wanted}: {self.process.communicate()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextlib.contextmanager
def running(*arguments: object, env: dict[str, str] | None = None) -> Iterator[Running]:
    made = Running(*arguments, env=env)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()


def fetch(service: dict[str, Any]) -> int:
    with urllib.request.urlopen(f"http://{service['host']}:{service['port']}/", timeout=60) as got:
        return int(got.status)


def test_a_program_finds_the_services_and_its_exit_code_is_ours(
    server: Sshd, web: RunningPool
) -> None:
    result = run_tool(
        *("socketpool", "tunnel", server.alias, "web", *options(server, web)),
        *("--", "python3", "-c", FETCH),
    )
    assert result.returncode == 3, result.stderr
    assert "200 True" in result.stdout
    assert "web 127." in result.stdout
    assert web.request("GET", "/v1/leases").body == []


def test_the_program_starts_with_default_signals(
    server: Sshd, web: RunningPool, tmp_path: Path
) -> None:
    target = tmp_path / "report"
    with odd_signals():
        result = run_tool(
            *("socketpool", "tunnel", server.alias, "web", *options(server, web)),
            *("--", *reporter(target)),
        )
    assert result.returncode == 0, result.stderr
    assert read_report(target) == FRESH


def test_services_stay_reachable_at_their_ports_until_ctrl_c(
    server: Sshd, web: RunningPool
) -> None:
    with running(server.alias, "web", "web", *options(server, web)) as command:
        told = command.event("leased")
        (lease,) = web.request("GET", "/v1/leases").body
        assert [s["port"] for s in told["services"]] == [s["port"] for s in lease["services"]]
        assert {s["host"].split(".")[0] for s in told["services"]} == {"127"}
        assert "127.0.0.1" not in {s["host"] for s in told["services"]}
        assert [fetch(service) for service in told["services"]] == [200, 200]
        assert command.stop() == 130
    assert web.request("GET", "/v1/leases").body == []


def test_a_host_that_restarts_costs_neither_the_addresses_nor_the_lease(
    server: Sshd, web: RunningPool
) -> None:
    with running(server.alias, "web", "--ttl", "15s", *options(server, web)) as command:
        told = command.event("leased")
        server.kill()
        command.event("tunnel", state="reconnecting")
        server.start()
        command.event("tunnel", state="up")
        assert fetch(told["services"][0]) == 200
        (lease,) = web.request("GET", "/v1/leases").body
        assert lease["lease"] == told["lease"]

        def renewed() -> bool:
            (now,) = web.request("GET", "/v1/leases").body
            return bool(now["expires_in"] > lease["expires_in"])

        eventually(renewed, "the lease renewed through the new connection")
        assert command.stop() == 130


def test_ctrl_c_does_not_wait_for_a_host_that_is_away(server: Sshd, web: RunningPool) -> None:
    with running(server.alias, "web", "--ttl", "2s", *options(server, web)) as command:
        command.event("leased")
        server.kill()
        command.event("tunnel", state="reconnecting")
        assert command.stop() == 130
    eventually(lambda: web.request("GET", "/v1/leases").body == [], "the lease's end")


def test_a_lease_that_ends_ends_the_command_with_why(server: Sshd, web: RunningPool) -> None:
    with running(server.alias, "web", "--ttl", "3s", *options(server, web)) as command:
        told = command.event("leased")
        web.release(told)
        _, errors = command.process.communicate(timeout=60)
    assert command.process.returncode == 5
    assert f"lease {told['lease']} has ended" in errors


def test_with_keep_another_lease_takes_its_place_behind_the_same_addresses(
    server: Sshd, web: RunningPool
) -> None:
    with running(server.alias, "web", "--keep", "--ttl", "2s", *options(server, web)) as command:
        told = command.event("leased")
        web.release(told)
        again = command.event("leased")
        assert again["lease"] != told["lease"]
        for key in ("host", "port"):
            assert again["services"][0][key] == told["services"][0][key]
        assert fetch(again["services"][0]) == 200
        # As after the sleep of a laptop: away for longer than the lease lives.
        server.kill()
        command.event("tunnel", state="reconnecting")
        eventually(lambda: web.request("GET", "/v1/leases").body == [], "the lease's end")
        server.start()
        third = command.event("leased")
        assert fetch(third["services"][0]) == 200
        assert command.stop() == 130
    assert web.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize("give_up", ["1h", "1s"])
def test_a_login_that_was_accepted_before_is_tried_again_for_a_while(
    server: Sshd, web: RunningPool, give_up: str
) -> None:
    """As of a host that boots, with /etc/nologin, or of an agent that is locked."""
    keys = server.folder / "authorized_keys"
    allowed = keys.read_text()
    proxy = ["--socks", free_port(), "--give-up", give_up]
    with running(server.alias, *proxy, *options(server, web)) as command:
        command.event("proxy")
        keys.write_text("")
        server.cut()
        command.event("tunnel", state="reconnecting")
        if give_up == "1h":
            why = command.event("tunnel", state="reconnecting")["why"]
            assert "takes none of the keys" in why
            assert "tried again for 1h after the loss (--give-up)" in why
            keys.write_text(allowed)
            command.event("tunnel", state="up")
            assert command.stop() == 130
        else:
            command.event("tunnel", state="refused")
            command.process.communicate(timeout=60)
            assert command.process.returncode == 5


def test_sigterm_ends_it_in_order_as_ctrl_c_does(server: Sshd, web: RunningPool) -> None:
    with running(server.alias, "web", *options(server, web)) as command:
        command.event("leased")
        command.process.terminate()
        command.process.communicate(timeout=60)
        assert command.process.returncode == 130
    assert web.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
def test_it_listens_where_it_is_told_to(server: Sshd, web: RunningPool, address: str) -> None:
    port = free_port()
    written = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    with running(server.alias, "web", "--listen", written, *options(server, web)) as command:
        (service,) = command.event("leased")["services"]
        assert (service["host"], service["port"]) == (
            "127.0.0.1" if address == "0.0.0.0" else address,
            port,
        )
        if ":" not in address:
            assert fetch(service) == 200
        with socket.create_connection((service["host"], port), timeout=60) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert stream.recv(5) == b"HTTP/"
        command.process.send_signal(signal.SIGINT)
        _, errors = command.process.communicate(timeout=60)
    assert ("whoever reaches this machine" in errors) == (address == "0.0.0.0")


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:x", "127.0.0.1:99999", "192.0.2.1:1"])
def test_where_it_can_t_listen_is_said(server: Sshd, web: RunningPool, listen: str) -> None:
    result = run_tool(
        *("socketpool", "tunnel", server.alias, "web", "--listen", listen), *options(server, web)
    )
    assert result.returncode == 2
    assert "listen" in result.stderr
    assert web.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize("what", ["a service", "a proxy alone"])
def test_a_host_that_shows_another_key_ends_the_command_with_why(
    server: Sshd, web: RunningPool, what: str
) -> None:
    wanted = ["web"] if what == "a service" else ["--socks", free_port()]
    with running(server.alias, *wanted, *options(server, web)) as command:
        command.event("leased" if what == "a service" else "proxy")
        server.kill()
        (server.folder / "host_ed25519").unlink()
        keygen(server.folder / "host_ed25519")
        server.start()
        command.event("tunnel", state="refused")
        _, errors = command.process.communicate(timeout=60)
    assert command.process.returncode == 5
    assert "is not the one that is known" in errors
    for lease in web.request("GET", "/v1/leases").body:
        web.release(lease)


def test_a_try_that_fails_as_nobody_foresaw_is_told_and_made_again(
    server: Sshd, web: RunningPool
) -> None:
    """Here it has no descriptor left for a moment."""
    with running(server.alias, "web", *options(server, web)) as command:
        told = command.event("leased")
        pid = command.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        server.cut()
        command.event("tunnel", state="reconnecting")
        again = command.event("tunnel", state="reconnecting")
        assert "Too many open files" in again["why"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        command.event("tunnel", state="up")
        assert fetch(told["services"][0]) == 200
        assert command.stop() == 130


def test_a_bug_in_what_keeps_the_tunnel_up_ends_the_command_with_it(
    server: Sshd, web: RunningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(_link: Link) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(Link, "watch", watch)
    words = [server.alias, "--socks", free_port(), *options(server, web)]
    result = CliRunner().invoke(tunnel_command, [str(word) for word in words])
    assert isinstance(result.exception, TunnelFailed)
    assert "ZeroDivisionError: injected" in result.exception.message
    assert result.exception.exit_code == 1


def test_two_hosts_at_once_have_addresses_of_their_own(
    new_sshd: SshdMaker, server: Sshd, web: RunningPool
) -> None:
    other = new_sshd.start("elsewhere")
    with (
        running(server.alias, "web", *options(server, web)) as first,
        running(other.alias, "web", *options(other, web)) as second,
    ):
        here, there = first.event("leased"), second.event("leased")
        assert here["services"][0]["host"] != there["services"][0]["host"]
        assert fetch(here["services"][0]) == fetch(there["services"][0]) == 200


# -- the proxy -----------------------------------------------------------------------------------


def through_proxy(proxy: int, host: str, port: int) -> tuple[int, socket.socket]:
    """Ask the proxy for a connection; its answer, and the connection."""
    stream = socket.create_connection(("127.0.0.1", proxy), timeout=60)
    stream.sendall(b"\x05\x01\x00")
    assert stream.recv(2) == b"\x05\x00"
    name = host.encode()
    stream.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
    return stream.recv(10)[1], stream


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def proxy(server: Sshd, web: RunningPool) -> Iterator[int]:
    port = free_port()
    with running(server.alias, "--socks", port, *options(server, web)) as command:
        assert command.event("proxy")["socks5"] == f"127.0.0.1:{port}"
        yield port


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_proxy_leads_to_the_pool_and_its_services(
    proxy: int, web: RunningPool, host: str
) -> None:
    for port in (web.port, web.instances("web")[0]["port"]):
        code, stream = through_proxy(proxy, host, port)
        with stream:
            assert code == 0
            stream.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
            assert stream.recv(5) == b"HTTP/"


@pytest.mark.parametrize("kind", ["socks4", "socks4a", "http"])
def test_the_proxy_speaks_other_protocols_too(proxy: int, web: RunningPool, kind: str) -> None:
    port = struct.pack(">H", web.port)
    request, answer = {
        "socks4": (b"\x04\x01" + port + b"\x7f\0\0\1me\0", b"\0\x5a" + bytes(6)),
        "socks4a": (b"\x04\x01" + port + b"\0\0\0\1\0localhost\0", b"\0\x5a" + bytes(6)),
        "http": (
            f"CONNECT 127.0.0.1:{web.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            b"HTTP/1.1 200 Connection established\r\n\r\n",
        ),
    }[kind]
    with socket.create_connection(("127.0.0.1", proxy), timeout=60) as stream:
        # What follows at once belongs to the service.
        stream.sendall(request + b"GET /livez HTTP/1.0\r\n\r\n")
        got = b""
        while len(got) < len(answer) + 5:
            got += stream.recv(100)
        assert got.startswith(answer + b"HTTP/")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "example.org", "0.0.0.0", "::1"])
def test_the_proxy_leads_nowhere_else(
    proxy: int, server: Sshd, web: RunningPool, host: str
) -> None:
    port = server.port if host == "127.0.0.1" else web.port
    code, stream = through_proxy(proxy, host, port)
    with stream:
        assert code == 2
        assert stream.recv(1) == b""


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01me\x00", b"\x00\x5b"),
        (b"\x04\x02\x00\x50\x7f\x00\x00\x01\x00", b"\x00\x5b"),
        (b"\x03\x01", b""),
        (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405 "),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n\r\n", b"HTTP/1.1 403 "),
        (b"CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"CONNECT 127.0.0.1:x HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"A" * 9000, b""),
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07"),
        (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00\x05\x08"),
        (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00\x05\x02"),
    ],
    ids=[
        *("version 4", "bind in version 4", "version 3", "GET", "elsewhere", "no port", "garbage"),
        *("no end", "only with a password", "bind", "unknown address", "no name"),
    ],
)
def test_the_proxy_answers_what_it_does_not_do(proxy: int, sent: bytes, answer: bytes) -> None:
    with socket.create_connection(("127.0.0.1", proxy), timeout=60) as stream:
        stream.sendall(sent)
        stream.shutdown(socket.SHUT_WR)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while data := stream.recv(100):
                got += data
    assert got.startswith(answer) if answer else got == b""


# -- profiles ------------------------------------------------------------------------------------


@pytest.fixture
def home(server: Sshd, trio: RunningPool, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody with a profile."""
    folder = tmp_path / ".config" / "socketpool"
    folder.mkdir(parents=True)
    (folder / "policy.yml").write_text("include: ['*.css']\n")
    (folder / "client.yml").write_text(
        "profiles:\n"
        "  acme:\n"
        f"    ssh: {server.alias}\n"
        f"    ssh_config: {server.client_config}\n"
        f"    pool: {trio.host}:{trio.port}\n"
        f"    token_file: {trio.state}/token\n"
        f"    policy: {folder}/policy.yml\n"
        "  near:\n"
        f"    pool: {trio.host}:{trio.port}\n"
        f"    token_file: {trio.state}/token\n"
    )
    return clean_environment(tmp_path)


@pytest.mark.parametrize(("profile", "sent"), [("@acme", 3), ("@near", 27)])
def test_a_profile_stands_for_address_way_token_and_policy(
    home: dict[str, str], tmp_path: Path, profile: str, sent: int
) -> None:
    archive = shutil.copy(DATA, tmp_path)
    result = run_tool(
        *("socketpool_client", "--backup", "@old", profile, archive),
        *("upload", "vendor", "download"),
        env=home,
    )
    assert result.returncode == 0, result.stderr
    assert f"59 members: {sent} sent" in result.stdout


def test_an_option_counts_more_than_the_profile(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x" * 40)
    result = run_tool(
        *("socketpool_client", "@acme", shutil.copy(DATA, tmp_path), "upload", "vendor"),
        *("--token-file", tmp_path / "token"),
        env=home,
    )
    assert result.returncode == 5


def test_a_profile_that_does_not_exist_is_refused_with_those_that_do(
    home: dict[str, str], tmp_path: Path
) -> None:
    archive = shutil.copy(DATA, tmp_path)
    result = run_tool("socketpool_client", "@amce", archive, "upload", env=home)
    assert result.returncode == 2
    assert "@acme, @near" in result.stderr


def test_the_umbrella_s_commands_take_profiles_too(home: dict[str, str]) -> None:
    result = run_tool("socketpool", "services", "--pool", "@acme", env=home)
    assert result.returncode == 0, result.stderr
    assert "download" in result.stdout
    refused = run_tool("socketpool", "lease", "upload", "--pool", "@acme", env=home)
    assert refused.returncode == 2
    assert "socketpool tunnel" in refused.stderr
    with running("@acme", "upload", env=home) as command:
        assert command.event("leased")["services"][0]["service"] == "upload"
        assert command.stop() == 130
