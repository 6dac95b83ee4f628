"""``socketpool_server`` as an operator runs it: start, stop, and everything it refuses."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from socketpool.cli.base import exit_code_of
from socketpool.cli.server import command
from tests.support.pools import (
    PROBE,
    TOOLS,
    WEB,
    ask_probe,
    belongings,
    clean_environment,
    connects,
    listening,
    place,
    run_tool,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker, RunningPool

SMALL = {"probe": PROBE | {"warm": 1, "max": 2}}


def refused(new_pool: PoolMaker, *arguments: object, code: int = 2) -> str:
    """Run a server that must not start; returns what it said."""
    folder = new_pool.folder()
    done = run_tool("socketpool_server", *arguments, "--state-dir", folder / "s")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert belongings(folder / "s") == []
    return done.stderr


def ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def server_for_everybody(folder: Path) -> list[str]:
    """``socketpool_server`` as any user of this machine can run it.

    Where the interpreter of these tests is private, the system's own of the same version stands in
    for it, with the same packages.
    """
    if works_for_nobody(TOOLS / "socketpool_server"):
        return [str(TOOLS / "socketpool_server")]
    home = folder / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    root = Path(__file__).parents[2]
    packages = [p for p in sys.path if p.endswith("site-packages")]
    (site / "packages.pth").write_text("\n".join([str(root), *packages]) + "\n")
    script = home / "socketpool_server.py"
    script.write_text("from socketpool.cli.server import main\nmain()\n")
    assert works_for_nobody(home / "bin" / "python", "-c", "import socketpool.cli.server")
    return [str(home / "bin" / "python"), str(script)]


def works_for_nobody(program: Path, *arguments: str) -> bool:
    try:
        done = subprocess.run(
            [program, *(arguments or ["--help"])],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            cwd="/",
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_is_success(new_pool: PoolMaker, number: int) -> None:
    pool = new_pool.start(SMALL)
    pool.lease("probe")
    assert pool.stop(number) == 0
    assert "stopped" in pool.errors
    assert "Traceback" not in pool.errors
    pool.assert_nothing_left()
    assert not (pool.state / "supervisor.sock").exists()


def test_ctrl_c_in_a_terminal_reaches_the_whole_group_and_stops_in_order(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start(SMALL)
    os.killpg(pool.process.pid, signal.SIGINT)
    assert pool.process.wait(60) == 0
    pool.assert_nothing_left()


def test_signals_in_a_hurry_are_success_too(new_pool: PoolMaker) -> None:
    """Ctrl-C twice, or Ctrl-C and a closed terminal at once."""
    pool = new_pool.start(SMALL)
    pool.process.send_signal(signal.SIGSTOP)  # so that all of them are there at once
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        pool.process.send_signal(number)
    pool.process.send_signal(signal.SIGCONT)
    assert pool.process.wait(60) == 0, pool.errors
    assert "bug" not in pool.errors
    pool.assert_nothing_left()


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.01, 0.03, 0.1])
def test_a_stop_amid_a_reload_is_not_lost(new_pool: PoolMaker, pause: float) -> None:
    pool = new_pool.start(SMALL)
    pool.process.send_signal(signal.SIGHUP)
    time.sleep(pause)
    assert pool.stop(signal.SIGTERM) == 0
    pool.assert_nothing_left()


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_a_signal_while_it_starts_stops_it(new_pool: PoolMaker, delay: float) -> None:
    pool = new_pool.start(SMALL, ready=False)
    eventually((pool.state / "supervisord.pid").exists, "supervisord's start")
    time.sleep(delay)
    assert pool.stop(signal.SIGINT) == 0
    pool.assert_nothing_left()


def test_what_is_announced_is_what_there_is(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL | {"web": WEB | {"warm": 1}})
    for instance in pool.instances():
        assert str(instance["port"]) in pool.output
    assert f"supervisorctl -c {pool.state}/supervisord.conf status" in pool.output
    assert "socketpool_client" not in pool.output, "none of these services has a client portion"


def test_supervisord_is_private_and_its_own(shared_pool: RunningPool) -> None:
    pool = shared_pool
    supervisord = pool.supervisord()
    assert supervisord.ppid() == pool.process.pid
    inet = [c for c in supervisord.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert inet == []
    assert (pool.state / "supervisor.sock").stat().st_mode & 0o777 == 0o700


def test_a_range_alone_runs_the_shipped_catalogue(new_pool: PoolMaker) -> None:
    ports = new_pool.ports()
    pool = new_pool.launch(new_pool.folder(), str(ports), ports)
    services = {s["service"]: s for s in pool.request("GET", "/v1/services").body}
    assert set(services) == {"upload", "vendor", "download", "web"}
    assert all(i["port"] in ports for i in pool.instances())
    with pool.leased("upload", "vendor", "download", "web") as lease:
        assert all(connects(e["host"], e["port"]) for e in lease["services"])


def test_the_port_of_the_command_line_is_used(new_pool: PoolMaker) -> None:
    ports = new_pool.ports()
    port = ports.last
    inner = type(ports)(ports.first, ports.last - 1)
    pool = new_pool.start(SMALL, port=port, ports=inner)
    assert pool.port == port
    assert connects("127.0.0.1", port)


@pytest.mark.skipif(not ipv6(), reason="this kernel has no IPv6")
def test_a_pool_on_ipv6_serves_on_ipv6(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL | {"web": WEB | {"warm": 1}}, host="::1")
    with pool.leased("probe", "web") as lease:
        assert {e["host"] for e in lease["services"]} == {"::1"}
        assert ask_probe(lease, "echo", text="x") == "x"
        web = place(lease, "web")
        assert connects("::1", web["port"])
        assert not connects("127.0.0.1", web["port"])
        told = run_tool("socketpool", "lease", "web", "--state-dir", pool.state)
        assert told.stdout.startswith("[::1]:")


def test_a_pool_on_a_name_listens_where_the_name_points(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL, host="localhost")
    with pool.leased("probe") as lease:
        assert place(lease, "probe")["host"] in {"127.0.0.1", "::1"}


def test_beyond_loopback_a_warning_names_the_tunnel(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL, host="0.0.0.0", services_host="127.0.0.1")
    warnings = [line for line in pool.errors.splitlines() if "0.0.0.0" in line]
    assert len(warnings) == 1
    assert "SSH tunnel" in warnings[0]
    assert pool.request("GET", "/livez").status == 200


def test_the_host_of_a_lease_is_the_address_at_which_the_client_came(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL, host="0.0.0.0")
    for host in ("127.0.0.1", "127.0.0.2"):
        pool.host = host
        with pool.leased("probe", wait=30) as lease:
            assert place(lease, "probe")["host"] == host
            assert ask_probe(lease, "echo", text="x") == "x"
    pool.host = "127.0.0.1"


def test_on_loopback_there_is_no_such_warning(shared_pool: RunningPool) -> None:
    assert "tunnel" not in shared_pool.errors


def test_a_second_server_on_one_state_directory_is_refused(shared_pool: RunningPool) -> None:
    before = shared_pool.instances()
    done = run_tool(
        "socketpool_server", "127.0.0.1", 0, "21000-21099", "--state-dir", shared_pool.state
    )
    assert done.returncode == 2
    assert "another pool server is running" in done.stderr
    assert "--state-dir" in done.stderr
    assert [i["pid"] for i in shared_pool.instances()] == [i["pid"] for i in before]


def test_a_port_in_use_is_refused_and_nothing_is_started(new_pool: PoolMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(new_pool, "127.0.0.1", port, "21000-21099")
    assert f"can't listen on 127.0.0.1:{port}: Address already in use" in said


def test_an_address_of_another_machine_is_refused(new_pool: PoolMaker) -> None:
    said = refused(new_pool, "192.0.2.1", 8080, "21000-21099")
    assert "192.0.2.1" in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("256.1.1.1", "0", "21000-21099"), "neither an IP address nor a host name"),
        (("127.0.0.1", "65536", "21000-21099"), "from 0 to 65535"),
        (("127.0.0.1", "http", "21000-21099"), "from 0 to 65535"),
        (("127.0.0.1", "0", "32000-33000"), "outgoing connections"),
        (("127.0.0.1", "0", "21099-21000"), "above the last"),
        (("127.0.0.1", "0", "/no/such/pool.yml"), "No such file"),
        (("127.0.0.1", "0"), "--help"),
        ((), "--help"),
        (("127.0.0.1", "0", "21000-21099", "more"), "more"),
        (("127.0.0.1", "0", "21000-21099", "--nonsense"), "--nonsense"),
        (("nowhere.invalid", "0", "21000-21099"), "can't be resolved"),
    ],
)
def test_wrong_usage_is_refused_in_words(
    new_pool: PoolMaker, arguments: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which is quicker: nothing gets as far as to start anything."""
    state = new_pool.folder() / "s"
    given = [*arguments, "--state-dir", str(state)]
    code = exit_code_of(lambda: command.main(given, standalone_mode=False), "socketpool_server")
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert part in err
    assert "Traceback" not in err
    assert not state.exists()


def test_a_bad_pool_file_is_refused_with_file_and_key(new_pool: PoolMaker) -> None:
    folder = new_pool.folder()
    path = new_pool.write(folder, SMALL, ports=new_pool.ports())
    path.write_text(path.read_text() + "servces: {}\n")
    said = refused(new_pool, "127.0.0.1", 0, path)
    assert str(path) in said
    assert "servces" in said
    assert "services" in said


def test_a_state_directory_that_can_t_work_is_refused(new_pool: PoolMaker) -> None:
    for bad in ("/tmp/" + "x" * 120, "/tmp/a%b", "/proc/no", "~no-such-user-here/x"):
        done = run_tool("socketpool_server", "127.0.0.1", 0, "21000-21099", "--state-dir", bad)
        assert done.returncode == 2, bad
        assert "state directory" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_state_directory_with_odd_characters_works(new_pool: PoolMaker) -> None:
    folder = new_pool.folder() / "a b,c=d{port}$é"
    folder.mkdir()
    ports = new_pool.ports()
    path = new_pool.write(folder, SMALL | {"web": WEB | {"warm": 1}}, ports=ports)
    pool = new_pool.launch(folder, path, ports)
    with pool.leased("probe", "web") as lease:
        assert "x" in ask_probe(lease, "write", name="x")
    assert "RUNNING" in pool.supervisorctl("status", "pool-server")


def test_a_pool_that_says_it_is_ready_is_shown_as_running(new_pool: PoolMaker) -> None:
    pool = new_pool.start(SMALL)
    assert "RUNNING" in pool.supervisorctl("status", "pool-server")


def test_the_environment_names_the_state_directory(new_pool: PoolMaker) -> None:
    folder = new_pool.folder()
    env = clean_environment(folder) | {"SOCKETPOOL_STATE_DIR": "/proc/no"}
    done = run_tool("socketpool_server", "127.0.0.1", 0, "21000-21099", env=env)
    assert done.returncode == 2
    assert "/proc/no" in done.stderr


def test_by_default_the_state_is_in_the_home_of_the_account(new_pool: PoolMaker) -> None:
    """And a client of the account finds the pool there, and its token."""
    home = new_pool.folder()
    ports = new_pool.ports()
    path = new_pool.write(home, SMALL, ports=ports)
    env = clean_environment(home)
    with (home / "out").open("wb") as out:
        server = subprocess.Popen(
            [TOOLS / "socketpool_server", "127.0.0.1", "0", path],
            stdout=out,
            stderr=out,
            env=env | {"PYTHONUNBUFFERED": "1"},
        )
    state = home / ".local" / "state" / "socketpool"
    try:
        eventually(lambda: "stop it:" in (home / "out").read_text(), "the pool", 90)
        done = run_tool("socketpool", "status", env=env)
        assert done.returncode == 0, done.stderr
        assert "probe:" in done.stdout
    finally:
        server.terminate()
        assert server.wait(60) == 0
    eventually(lambda: not belongings(state) and not listening(ports), "nothing left")


def test_serve_of_the_umbrella_command_is_the_same(new_pool: PoolMaker) -> None:
    folder = new_pool.folder()
    ports = new_pool.ports()
    path = new_pool.write(folder, SMALL, ports=ports, listen="127.0.0.1:0")
    with (folder / "out").open("wb") as out:
        server = subprocess.Popen(
            [TOOLS / "socketpool", "serve", path, "--state-dir", folder / "s"],
            stdout=out,
            stderr=out,
            env=clean_environment(folder) | {"PYTHONUNBUFFERED": "1"},
        )
    try:
        eventually(lambda: "stop it:" in (folder / "out").read_text(), "the pool", 90)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
    eventually(lambda: not belongings(folder / "s"), "nothing left")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_runs_a_pool_and_root_is_warned(
    new_pool: PoolMaker, shared_pool: RunningPool
) -> None:
    assert "running as root" in shared_pool.errors
    folder = new_pool.folder()
    ports = new_pool.ports()
    path = new_pool.write(folder, {"web": WEB | {"warm": 1}}, ports=ports)
    for each in (folder, *folder.rglob("*")):
        os.chown(each, 65534, 65534)
    command = server_for_everybody(folder)
    with (folder / "out").open("wb") as out:
        server = subprocess.Popen(
            [*command, "127.0.0.1", "0", path, "--state-dir", folder / "s"],
            stdout=out,
            stderr=out,
            env=clean_environment(folder) | {"PYTHONUNBUFFERED": "1"},
            user=65534,
            group=65534,
            extra_groups=[],
        )
    try:
        eventually(lambda: "stop it:" in (folder / "out").read_text(), "the pool", 90)
        assert {p.uids().effective for p in belongings(folder / "s")} == {65534}
        assert "root" not in (folder / "out").read_text()
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_a_catalogue_that_changed_is_read_at_the_next_start(new_pool: PoolMaker) -> None:
    """Nothing of the last run's programs lingers in the state directory."""
    pool = new_pool.start(SMALL | {"web": WEB | {"warm": 1}})
    assert pool.stop() == 0
    path: Path = pool.folder / "services" / "web" / "service.yml"
    path.unlink()
    content: dict[str, Any] = yaml.safe_load((pool.folder / "pool.yml").read_text())
    (pool.folder / "pool.yml").write_text(yaml.safe_dump(content))
    again = new_pool.launch(pool.folder, pool.folder / "pool.yml", pool.ports)
    assert {i["service"] for i in again.instances()} == {"probe"}
    assert "web" not in again.supervisorctl("status")
    with contextlib.suppress(FileNotFoundError):
        assert not (again.state / "services" / "web.json").exists()
