"""The table, the configuration files, supervisord and the machine are kept in step."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psutil

from tests.support.invariants import assert_consistent
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, ended, kill, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_a_bad_file_in_conf_d_does_not_keep_the_pool_from_growing(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 6}})
    folder = pool.state / "conf.d"
    (folder / "bad.conf").write_text("[program:bad]\nnumprocs=no\n")
    (folder / "worse.conf").write_text("no section\n")
    (folder / "good.conf").write_text("[program:good]\ncommand=/bin/sleep 1000\n")
    leases = [pool.lease("probe", wait=60) for _ in range(4)]
    assert len({lease["services"][0]["port"] for lease in leases}) == 4
    refused = pool.request("GET", "/v1/pool").body["refused_files"]
    assert refused == ["bad.conf", "worse.conf"]
    assert (folder / "good.conf").exists()
    assert (folder / "bad.refused").exists()
    told = run_tool("socketpool", "status", "--state-dir", pool.state).stdout
    assert "conf.d/bad.conf" in told
    assert_consistent(pool)


def test_a_file_of_ours_that_is_gone_comes_back(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 2}})
    path = pool.state / "conf.d" / "probe.conf"
    text = path.read_text()
    path.unlink()
    eventually(path.exists, "the file")
    assert path.read_text() == text
    assert "probe" not in pool.supervisorctl("update")


def test_a_group_that_an_operator_removed_is_replaced(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 3}})
    lease = pool.lease("probe")
    port = lease["services"][0]["port"]
    pool.await_idle("probe", 1)
    block = pool.instance(port)["instance"].split(":")[0]
    pool.supervisorctl("stop", f"{block}:*")
    pool.supervisorctl("remove", block)
    eventually(lambda: pool.instance(port)["state"] == "draining", "to be noticed")
    assert_consistent(pool)
    pool.release(lease)
    eventually(lambda: port not in {i["port"] for i in pool.instances()}, "to be forgotten")
    with pool.leased("probe", wait=30) as other:
        assert ask_probe(other, "echo", text="x") == "x"


def test_all_instances_stopped_by_an_operator_stay_so_until_they_are_started(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 2, "max": 4}})
    pool.supervisorctl("stop", "probe:*")
    eventually(lambda: {i["state"] for i in pool.instances()} == {"stopped"}, "both")
    assert len(pool.instances()) == 2, "nothing is started in their place"
    pool.supervisorctl("start", "probe:*")
    pool.await_idle("probe", 2)
    assert len(pool.instances()) == 2


def test_a_leased_instance_stopped_by_an_operator_stays_so_after_its_lease(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    lease = pool.lease("probe")
    (instance,) = pool.instances()
    pool.supervisorctl("stop", instance["instance"])
    eventually(lambda: pool.instance(instance["port"])["pid"] == 0, "its end to be seen")
    assert pool.instance(instance["port"])["state"] == "leased"
    pool.release(lease)
    pool.await_state(instance["port"], "stopped")
    pool.supervisorctl("start", instance["instance"])
    with pool.leased("probe", wait=30) as other:
        assert ask_probe(other, "echo", text="x") == "x"


def test_a_daemon_that_an_earlier_process_of_an_instance_left_is_ended(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    """It has left the group and the family of its instance, and outlives even that's restart."""
    code = (
        "import os, pathlib, socket, subprocess, sys, time\n"
        "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "p = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "f = pathlib.Path(sys.argv[3]); f.with_suffix('.new').write_text(str(p.pid))\n"
        "f.with_suffix('.new').rename(f)\n"
        "while True: time.sleep(1)\n"
    )
    file = tmp_path / "pid"
    command = ["{python}", "-c", code, "{host}", "{port}", str(file)]
    pool = new_pool.start({"leaving": WEB | {"command": command, "warm": 1, "max": 1}})
    first = int(file.read_text())
    (instance,) = pool.instances("leaving")
    kill(instance["pid"])
    eventually(lambda: ended(first), "the first daemon's end", 60)
    second = int(file.read_text())
    assert second != first
    assert not ended(second), "that of the process that runs now is left alone"
    assert pool.await_state(instance["port"], "idle")["pid"] != instance["pid"]


def test_a_restart_of_the_pool_server_finds_everything_as_it_was(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 2, "max": 6}})
    leases = [pool.lease("probe", wait=60, ttl=120) for _ in range(4)]
    pool.await_idle("probe", 2)  # what was grown meanwhile has come up
    before = {i["port"]: i["pid"] for i in pool.instances()}
    assert 0 not in before.values()
    kill(pool.server_pid())

    def back() -> bool:
        try:
            return pool.request("GET", "/readyz").status == 200
        except OSError:
            return False

    eventually(back, "the pool server")
    now = {i["port"]: i["pid"] for i in pool.instances()}
    assert {port: now.get(port) for port in before} == before
    assert_consistent(pool)
    for lease in leases:
        assert ask_probe(lease, "echo", text="x") == "x"
        pool.release(lease)


def test_strange_processes_are_none_of_our_business(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1}})
    with subprocess.Popen(
        ["sleep", "1000"], env={"SUPERVISOR_SERVER_URL": "unix:///another"}
    ) as other:
        kill(pool.instances()[0]["pid"])
        pool.await_idle("probe", 1)
        assert psutil.pid_exists(other.pid)
        assert other.poll() is None
        other.kill()
