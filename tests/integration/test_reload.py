"""A changed configuration is applied to a running pool, whole or not at all."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.invariants import assert_consistent
from tests.support.pools import (
    PROBE,
    PROBE_CODE,
    TOOLS,
    WEB,
    PoolMaker,
    ask_probe,
    clean_environment,
    run_tool,
)
from tests.support.traffic import Traffic
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.support.pools import RunningPool

TWO = {
    "probe": PROBE | {"warm": 2, "max": 4},
    "web": WEB | {"warm": 1, "max": 2},
}


def pids(pool: RunningPool, service: str) -> dict[int, int]:
    return {i["port"]: i["pid"] for i in pool.instances(service)}


def reload(pool: RunningPool) -> CompletedProcess[str]:
    return run_tool("socketpool", "reload", "--state-dir", pool.state)


def test_a_reload_under_traffic_touches_only_what_has_changed(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO | {"changing": PROBE | {"warm": 2, "max": 4}})
    kept = pids(pool, "probe") | pids(pool, "web")
    before = pids(pool, "changing")
    held = pool.lease("changing")
    port = held["services"][0]["port"]
    with Traffic(pool, ("probe",)) as untouched, Traffic(pool, ("changing",), 1) as touched:
        untouched.await_served(5)
        pool.edit_service("changing", environment={"NEW": "{port}"})
        pool.edit(services={"probe": {"warm": 1}})
        done = reload(pool)
        assert (done.returncode, done.stderr) == (0, "reloaded\n")
        assert "changed" in done.stdout
        assert "probe" not in done.stdout
        assert pool.instance(port)["pid"] == before[port], "it is its holder's to the end"
        untouched.await_served(5)
        touched.await_served(5)
        eventually(
            lambda: all(
                i["pid"] != before.get(i["port"])
                for i in pool.instances("changing")
                if i["port"] != port
            ),
            "the other instances of the changed service to be replaced",
        )
        pool.release(held)
        eventually(lambda: pool.instance(port)["pid"] not in {0, before[port]}, "the last one")
    assert untouched.failures == touched.failures == []
    now = pids(pool, "probe") | pids(pool, "web")
    assert {p: now.get(p) for p in kept} == kept
    with pool.leased("changing", wait=30) as lease:
        found = ask_probe(lease, "environment", "changing")
        assert found["NEW"] == str(lease["services"][0]["port"])
    assert_consistent(pool)


def test_changed_code_is_a_change_too(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    before = pids(pool, "probe")
    assert reload(pool).stdout == ""
    assert pids(pool, "probe") == before
    code = PROBE_CODE.replace("return text", "return text.upper()")
    (pool.folder / "services" / "probe" / "probe.py").write_text(code)
    assert "probe" in reload(pool).stdout
    eventually(lambda: not before.items() & pids(pool, "probe").items(), "new processes")
    pool.await_idle("probe", 2)
    with pool.leased("probe") as lease:
        assert ask_probe(lease, "echo", text="x") == "X"


def test_services_come_and_go(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    kept = pids(pool, "probe")
    lease = pool.lease("web", ttl=60)
    (pool.folder / "services" / "web").rename(pool.folder / "web")
    pool.edit_service("added", **WEB | {"warm": 2})
    done = reload(pool)
    assert done.stdout == "added: added\nremoved: web\n"
    port = lease["services"][0]["port"]
    assert pool.instance(port)["state"] == "draining", "at once: nobody may have it any more"
    assert {i["state"] for i in pool.await_idle("added", 2)} == {"idle"}
    answer = pool.request("POST", "/v1/leases", {"services": ["web"], "wait": 60})
    assert (answer.status, answer.body["code"]) == (404, "unknown-service")
    assert pool.request("GET", f"/v1/leases/{lease['lease']}").status == 200
    pool.supervisorctl("restart", "pool-server")  # what is on its way out stays so
    eventually(lambda: _states(pool, "web") in ({"draining"}, {"draining", "stopped"}), "as before")
    pool.release(lease)
    eventually(lambda: pool.instances("web") == [], "the service's end")
    assert not list((pool.state / "conf.d").glob("web*"))
    assert pids(pool, "probe") == kept

    (pool.folder / "web").rename(pool.folder / "services" / "web")
    assert reload(pool).stdout == "added: web\n"
    with pool.leased("web", wait=30):
        assert_consistent(pool)


def _states(pool: RunningPool, service: str) -> set[str]:
    try:
        return {i["state"] for i in pool.instances(service)}
    except (OSError, AssertionError):
        return set()


def test_numbers_change_without_a_restart(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO, lease={"ttl": "30s", "max": "60s"})
    before = pids(pool, "probe")
    pool.edit(
        pool={
            "ports": str(pool.ports),
            "lease": {"ttl": "5s", "max": "7s"},
            "instances": {"shrink_after": "1s"},
        },
        services={"probe": {"warm": 4, "max": 9}},
    )
    assert reload(pool).returncode == 0
    assert pids(pool, "probe").items() >= before.items()
    pool.await_idle("probe", 4)
    assert pool.lease("probe")["ttl"] == 5
    assert pool.lease("probe", ttl=600)["ttl"] == 7
    (shown,) = [s for s in pool.request("GET", "/v1/services").body if s["service"] == "probe"]
    assert (shown["warm"], shown["max"]) == (4, 9)
    pool.edit(services={"probe": {"warm": 1}})
    assert reload(pool).returncode == 0
    eventually(
        lambda: len(pool.instances("probe")) <= 2, f"to shrink: {pool.log('pool-server')}", 60
    )


BAD = {
    "not YAML": "pool: [",
    "unknown key": "pool: {prots: 1-2}",
    "no folder": "catalogue: [nowhere]",
    "warm above max": "catalogue: [services]\nservices: {probe: {warm: 9, max: 1}}",
    "other ports": "catalogue: [services]\npool: {ports: 21000-21499}",
}


def test_a_bad_file_is_refused_whole_and_the_old_state_stays(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    path = pool.folder / "pool.yml"
    good = path.read_text()
    before = pids(pool, "probe") | pids(pool, "web")
    kept = {p: p.read_text() for p in (pool.state / "services").iterdir()}
    kept[pool.state / "pool.json"] = (pool.state / "pool.json").read_text()
    with Traffic(pool, ("probe",), clients=1) as traffic:
        for what, text in BAD.items():
            path.write_text(text)
            done = reload(pool)
            assert done.returncode == 2, what
            assert done.stderr.startswith("socketpool: "), done.stderr
        assert "restart the pool" in done.stderr
        path.write_text(good)
        pool.edit_service("probe", warm=-1)
        pool.edit_service("new", **WEB)
        done = reload(pool)
        assert done.returncode == 2
        assert "warm" in done.stderr
        traffic.await_served(3)
    assert traffic.failures == []
    assert {p: p.read_text() for p in kept} == kept
    assert {s["service"] for s in pool.request("GET", "/v1/services").body} == {"probe", "web"}
    now = pids(pool, "probe") | pids(pool, "web")
    assert {p: now.get(p) for p in before} == before


def test_a_change_that_does_not_work_stops_at_the_first_instance(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 3, "max": 3}})
    before = pids(pool, "probe")
    (pool.folder / "services" / "probe" / "probe.py").write_text("class Probe: pass\n")
    assert reload(pool).returncode == 0
    eventually(lambda: "failed" in _states(pool, "probe"), "the first one's failure")
    with Traffic(pool, ("probe",), clients=2) as traffic:
        traffic.await_served(10)
    assert traffic.failures == []
    assert len(before.items() & pids(pool, "probe").items()) == 2
    (pool.folder / "services" / "probe" / "probe.py").write_text(PROBE_CODE)
    assert reload(pool).returncode == 0
    eventually(lambda: not before.items() & pids(pool, "probe").items(), "all to be new", 60)
    pool.await_idle("probe", 3)


@pytest.mark.parametrize("to", ["socketpool_server", "pool server"])
def test_sighup_reloads_and_a_bad_file_is_told(new_pool: PoolMaker, to: str) -> None:
    pool = new_pool.start(TWO)
    before = pids(pool, "probe")
    pid = pool.process.pid if to == "socketpool_server" else pool.server_pid()
    pool.edit_service("added", **WEB)
    os.kill(pid, signal.SIGHUP)
    pool.await_idle("added", 1)
    assert pids(pool, "probe") == before

    (pool.folder / "pool.yml").write_text("pool: {prots: 1-2}")
    os.kill(pid, signal.SIGHUP)

    def told() -> str:
        return pool.errors if to == "socketpool_server" else pool.log("pool-server")

    eventually(lambda: "reload refused" in told() and "prots" in told(), "the refusal")
    with pool.leased("added") as lease:
        assert lease["services"]


def test_a_closed_terminal_still_stops_the_pool(new_pool: PoolMaker) -> None:
    """SIGHUP is what the kernel sends then; a pool must not outlive its terminal."""
    folder, ports = new_pool.folder(), new_pool.ports()
    master, slave = pty.openpty()
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [
                *("setsid", "--ctty", TOOLS / "socketpool_server", "127.0.0.1", "0", str(ports)),
                *("--state-dir", folder / "s"),
            ],
            stdin=slave,
            stdout=out,
            stderr=out,
            env=clean_environment(folder),
        )
    os.close(slave)
    eventually(lambda: b"stop it:" in (folder / "out").read_bytes(), "the pool", 60)
    os.close(master)
    assert process.wait(60) == 0
    assert b"stopped" in (folder / "out").read_bytes()


def test_clients_of_the_file_come_and_go_with_a_reload(new_pool: PoolMaker) -> None:
    from socketpool.config.clients import token_hash

    pool = new_pool.start(TWO)
    assert pool.request("GET", "/v1/services", token="of-a-client").status == 401
    pool.edit(clients={"build": {"token": token_hash("of-a-client"), "services": ["web"]}})
    assert reload(pool).returncode == 0
    shown = pool.request("GET", "/v1/services", token="of-a-client").body
    assert [s["service"] for s in shown] == ["web"]
    for method, path in (("POST", "/v1/reload"), ("POST", "/v1/drain"), ("GET", "/v1/pool")):
        body: dict[str, Any] | None = {} if method == "POST" else None
        refused = pool.request(method, path, body, token="of-a-client")
        assert (refused.status, refused.body["code"]) == (403, "operator-only")
    pool.edit(clients={})
    assert reload(pool).returncode == 0
    assert pool.request("GET", "/v1/services", token="of-a-client").status == 401
