"""The services for programs that are not ours: redis and postgres, against the real ones."""

from __future__ import annotations

import contextlib
import runpy
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from socketpool.config.settings import extra_catalogue
from tests.support.aside import Aside
from tests.support.pools import PoolMaker, belongings, command_of, kill, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

START_POSTGRES = extra_catalogue() / "postgres" / "start_postgres.py"


def start_pool(maker: PoolMaker) -> RunningPool:
    folder, ports = maker.folder(), maker.ports()
    config = folder / "pool.yml"
    config.write_text(yaml.safe_dump({"pool": {"ports": str(ports)}, "catalogue": ["extra"]}))
    return maker.launch(folder, config, ports)


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield start_pool(maker)


def run(pool: RunningPool, *arguments: str) -> str:
    """What a program prints that is run with leased services."""
    done = run_tool("socketpool", "run", "--state-dir", pool.state, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shared_memory() -> set[Path]:
    return set(Path("/dev/shm").glob("PostgreSQL.*"))


def redis(entry: dict[str, Any], *commands: str) -> list[str]:
    with socket.create_connection((entry["host"], entry["port"]), 30) as stream:
        stream.sendall("".join(f"{c}\r\n" for c in commands).encode())
        lines = stream.makefile(encoding="ascii")
        return [lines.readline().strip() for _ in commands]


def test_a_redis_is_grown_on_demand_and_empty_for_each_lease(pool: RunningPool) -> None:
    lease = pool.lease("redis", wait=30)
    (entry,) = lease["services"]
    assert entry["url"] == "redis://{host}:{port}/0"
    assert redis(entry, "SET word hello", "DBSIZE") == ["+OK", ":1"]
    pool.release(lease)
    pool.await_state(entry["port"], "idle")
    with pool.leased("redis", wait=30) as again:
        assert again["services"][0]["port"] == entry["port"]
        assert redis(again["services"][0], "DBSIZE") == [":0"]


def test_a_program_reaches_redis_and_postgres_by_their_variables(pool: RunningPool) -> None:
    ping = (
        "import os, socket; s = socket.create_connection((os.environ['REDIS_HOST'], "
        "int(os.environ['REDIS_PORT']))); s.sendall(b'PING\\r\\n'); print(s.recv(100))"
    )
    assert "PONG" in run(pool, "redis", "--", sys.executable, "-c", ping)
    query = 'psql "$POSTGRES_URL" -Atc "select 6 * 7"'
    assert run(pool, "postgres", "--wait", "120", "--", "sh", "-c", query) == "42\n"


def test_a_postgres_is_empty_for_each_lease_and_leaves_nothing_behind(pool: RunningPool) -> None:
    before = shared_memory()
    make = 'psql "$POSTGRES_URL" -Atqc "create table kept (n int)" -c "select count(*) from kept"'
    for _ in range(2):
        assert run(pool, "postgres", "--wait", "120", "--", "sh", "-c", make) == "0\n"
    assert not shared_memory() - before


def test_a_postgres_that_was_killed_is_replaced_with_all_its_processes(pool: RunningPool) -> None:
    with pool.leased("postgres", wait=120) as lease:
        (entry,) = lease["services"]
        victim = pool.instance(entry["port"])["pid"]
        family = psutil.Process(victim).children(recursive=True)
        kill(victim)
        eventually(lambda: pool.instance(entry["port"])["pid"] not in {0, victim}, "its successor")
        eventually(lambda: not any(p.is_running() for p in family), "the end of its family")


def test_a_postgres_that_is_killed_while_it_starts_leaves_nothing_behind(
    new_pool: PoolMaker,
) -> None:
    pool = start_pool(new_pool)
    before = shared_memory()
    asking = Aside(pool.request, "POST", "/v1/leases", {"services": ["postgres"], "wait": 0.5})

    def killed() -> bool:
        for process in belongings(pool.state):
            if "--boot" in command_of(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    return True
        return False

    eventually(killed, "the making of a cluster")
    asking.result()
    assert not shared_memory() - before


def test_a_program_that_is_not_installed_is_named(
    new_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    pool = start_pool(new_pool)
    answer = pool.request("POST", "/v1/leases", {"services": ["redis"], "wait": 5})
    assert answer.status == 503
    assert answer.body["detail"].startswith("every instance of redis has failed")
    (instance, *_) = pool.instances("redis")
    assert "can't run 'redis-server': No such file or directory; install it" in pool.log(
        f"redis-{instance['port']}"
    )


def test_a_missing_postgres_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find_programs = runpy.run_path(str(START_POSTGRES))["find_programs"]
    monkeypatch.setitem(find_programs.__globals__, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install postgresql"):
        find_programs()


def test_the_newest_postgres_of_debian_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("9.6", "15", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "postgres").touch()
    (tmp_path / "15" / "bin" / "initdb").touch()
    (tmp_path / "9.6" / "bin" / "initdb").touch()
    find_programs = runpy.run_path(str(START_POSTGRES))["find_programs"]
    monkeypatch.setitem(find_programs.__globals__, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_programs() == tmp_path / "15" / "bin"
