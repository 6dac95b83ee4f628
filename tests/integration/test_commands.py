"""The commands of a client, against a real pool."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from socketpool.cli import client, main
from socketpool.cli.base import exit_code_of
from socketpool.config.values import Address
from tests.support.pools import PROBE, TOOLS, clean_environment, connects, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker, RunningPool

HERE = str(Path(__file__).parents[1] / "data" / "webflow-site.zip")
COMMANDS = (
    *("socketpool", "socketpool_client", "socketpool_server"),
    *("uploader_client", "vendor_client", "downloader_client"),
    *("uploader_server", "vendor_server", "downloader_server"),
)


def pool_tool(
    pool: RunningPool, *arguments: object, **options: str
) -> subprocess.CompletedProcess[str]:
    return run_tool("socketpool", *arguments, "--state-dir", pool.state)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_shown_from_anywhere_and_is_success(name: str, tmp_path: Path) -> None:
    done = run_tool(name, "-help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(name)
    assert done.stderr == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_version_is_shown(name: str) -> None:
    done = run_tool(name, "--version")
    assert done.returncode == 0
    assert name in done.stdout


def test_lease_prints_an_address_that_answers(shared_pool: RunningPool) -> None:
    done = pool_tool(shared_pool, "lease", "web")
    assert done.returncode == 0, done.stderr
    address = Address.parse(done.stdout.strip())
    assert connects(address.host, address.port)
    lease_id = done.stderr.split()[1].rstrip(",")
    assert pool_tool(shared_pool, "release", lease_id).returncode == 0


def test_leases_renew_and_release(shared_pool: RunningPool) -> None:
    granted = pool_tool(shared_pool, "lease", "probe", "web", "--ttl", "40s", "--json")
    lease = json.loads(granted.stdout)
    assert [s["service"] for s in lease["services"]] == ["probe", "web"]
    assert lease["ttl"] == 40
    listed = pool_tool(shared_pool, "leases")
    assert lease["lease"] in listed.stdout
    as_json = json.loads(pool_tool(shared_pool, "leases", "--json").stdout)
    assert lease["lease"] in [entry["lease"] for entry in as_json]
    renewed = pool_tool(shared_pool, "renew", lease["lease"])
    assert renewed.returncode == 0
    assert renewed.stdout.endswith("s left\n")
    assert pool_tool(shared_pool, "release", lease["lease"]).returncode == 0
    assert lease["lease"] not in pool_tool(shared_pool, "leases").stdout
    for what in ("renew", "release"):
        again = pool_tool(shared_pool, what, lease["lease"])
        assert again.returncode == 5
        assert "no such lease" in again.stderr


def test_status_shows_every_instance_by_service_and_port(shared_pool: RunningPool) -> None:
    done = pool_tool(shared_pool, "status")
    assert done.returncode == 0
    for instance in shared_pool.instances():
        assert instance["instance"] in done.stdout
    as_json = json.loads(pool_tool(shared_pool, "status", "--json").stdout)
    assert {i["port"] for i in as_json} == {i["port"] for i in shared_pool.instances()}


def test_services_shows_the_catalogue(shared_pool: RunningPool) -> None:
    done = pool_tool(shared_pool, "services")
    assert "A plain program." in done.stdout
    assert "4 warm, 6 at most" in done.stdout
    as_json = json.loads(pool_tool(shared_pool, "services", "--json").stdout)
    assert [s["service"] for s in as_json] == ["probe", "web"]


def test_a_held_lease_is_released_with_ctrl_c(shared_pool: RunningPool) -> None:
    process = subprocess.Popen(
        [
            *(TOOLS / "socketpool", "lease", "probe", "--hold", "--ttl", "1s"),
            *("--state-dir", shared_pool.state, "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(shared_pool.folder) | {"PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        lease = json.loads(process.stdout.readline())
        while "held" not in process.stderr.readline():
            assert process.poll() is None
        path = f"/v1/leases/{lease['lease']}"
        seen: list[float] = []

        def renewed() -> bool:
            answer = shared_pool.request("GET", path)
            assert answer.status == 200, "the lease ended although it is held"
            seen.append(answer.body["expires_in"])
            return sum(a < b for a, b in itertools.pairwise(seen)) >= 3

        eventually(renewed, "three renewals")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert shared_pool.request("GET", path).status == 404


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("socketpool_client", (), "--help"),
        ("socketpool_client", ("127.0.0.1", "8080", HERE), "services"),
        ("socketpool_client", ("127.0.0.1", "8080", "no.zip", "upload"), "'no.zip' does not exist"),
        ("socketpool_client", ("256.0.0.1", "8080", HERE, "upload"), "IP address"),
        ("socketpool_client", ("127.0.0.1", "0", HERE, "upload"), "from 1 to 65535"),
        ("socketpool_client", ("127.0.0.1", "70000", HERE, "upload"), "from 1 to 65535"),
        ("socketpool_client", ("127.0.0.1", "80", HERE, "upload", "--wait", "x"), "--wait"),
        ("socketpool_client", ("127.0.0.1", "80", HERE, "upload", "--wait", "999"), "--wait"),
        ("socketpool_client", ("--nonsense",), "--nonsense"),
        ("socketpool", (), "Usage|status"),
        ("socketpool", ("nonsense",), "nonsense"),
        ("socketpool", ("lease",), "SERVICES"),
        ("socketpool", ("lease", "web", "--ttl", "soon", "--pool", "127.0.0.1:1"), "90s, 5m or 1h"),
        ("socketpool", ("status", "--pool", "here"), "127.0.0.1:8080"),
        ("socketpool", ("status", "--state-dir", "/tmp/no-pool-was-here"), "no pool was ever"),
        ("socketpool", ("serve", "--listen", "here"), "127.0.0.1:8080"),
    ],
)
def test_wrong_usage_is_2_and_told_in_words(
    name: str, arguments: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which is quicker."""
    command = client.command if name == "socketpool_client" else main.command
    code = exit_code_of(
        lambda: command.main(list(arguments), prog_name=name, standalone_mode=False), name
    )
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert any(p.lower() in err.lower() for p in part.split("|")), err
    assert "Traceback" not in err


def test_nobody_there_is_3(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for name, arguments in (
            ("socketpool", ("status", "--pool", f"127.0.0.1:{port}")),
            ("socketpool_client", ("127.0.0.1", port, HERE, "upload")),
        ):
            done = run_tool(name, *arguments, "--state-dir", tmp_path / "s")
            assert done.returncode == 3
            assert f"nothing listens at 127.0.0.1 port {port}" in done.stderr


def test_somebody_else_there_is_3_and_hangs_nobody(tmp_path: Path) -> None:
    """A server that speaks another protocol, or closes at once."""
    (tmp_path / "token").write_text("token-of-another-pool")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def answer() -> None:
            for reply in (b"SSH-2.0-x\r\n", b"") * 2:
                stream, _ = listener.accept()
                with stream:
                    stream.sendall(reply)
                    stream.recv(1 << 16)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        pool = f"127.0.0.1:{listener.getsockname()[1]}"
        done = run_tool("socketpool", "status", "--pool", pool, "--token-file", tmp_path / "token")
    assert done.returncode == 3
    assert "does not answer as a pool server" in done.stderr


def test_no_capacity_is_4(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    assert pool_tool(pool, "lease", "probe", "--ttl", "1h").returncode == 0
    done = pool_tool(pool, "lease", "probe", "--wait", "0.2")
    assert done.returncode == 4
    assert "nothing became free" in done.stderr
    assert done.stdout == ""


def test_a_wrong_or_missing_token_is_5(shared_pool: RunningPool, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong-but-a-token")
    where = ("status", "--pool", f"127.0.0.1:{shared_pool.port}")
    wrong = run_tool("socketpool", *where, "--token-file", tmp_path / "token")
    assert wrong.returncode == 5
    assert "token is missing or wrong" in wrong.stderr
    missing = run_tool("socketpool", *where, "--state-dir", tmp_path / "s")
    assert missing.returncode == 5
    assert "SOCKETPOOL_TOKEN_FILE" in missing.stderr


def test_a_token_file_in_the_environment_serves(shared_pool: RunningPool, tmp_path: Path) -> None:
    env = clean_environment(tmp_path) | {
        "SOCKETPOOL_TOKEN_FILE": str(shared_pool.state / "token"),
        "SOCKETPOOL_POOL": f"127.0.0.1:{shared_pool.port}",
    }
    assert run_tool("socketpool", "services", env=env).returncode == 0


def test_an_unknown_service_is_2_with_the_known_ones(shared_pool: RunningPool) -> None:
    done = pool_tool(shared_pool, "lease", "nope")
    assert done.returncode == 2
    assert "nope" in done.stderr
    assert "probe, web" in done.stderr


def test_the_client_refuses_unknown_services_and_senseless_orders(
    shared_pool: RunningPool,
) -> None:
    before = shared_pool.request("GET", "/v1/leases").body
    for services, part in ((["nope"], "probe, web"), (["web"], "plain program")):
        done = run_tool(
            "socketpool_client",
            *("127.0.0.1", shared_pool.port, HERE, *services),
            *("--state-dir", shared_pool.state),
        )
        assert done.returncode == 2, done.stderr
        assert part in done.stderr
    assert shared_pool.request("GET", "/v1/leases").body == before
