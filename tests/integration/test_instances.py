"""What an operator never has to look after: instances that die, hang, loop or lose their port."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from socketpool.errors import SocketpoolError
from socketpool.protocol.blocks import send_line_block
from tests.support.invariants import assert_consistent
from tests.support.pools import (
    PROBE,
    WEB,
    PoolMaker,
    ask_probe,
    ended,
    kill,
    place,
    run_tool,
    session,
)
from tests.support.traffic import Traffic
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

QUICK = {"readiness": {"interval": "300ms", "timeout": "1s"}}
RETRY = {"retry_first": "200ms", "retry_most": "1s"}


@pytest.fixture(scope="module")
def _pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(
            {
                "probe": PROBE | QUICK | {"warm": 1, "max": 2},
                "single": PROBE | QUICK | {"warm": 1, "max": 1},
                "web": WEB | QUICK | {"warm": 1, "max": 1},
            },
            instances=RETRY,
        )


@pytest.fixture
def pool(_pool: RunningPool) -> Iterator[RunningPool]:
    """A pool for faults; each test finds it recovered, and leaves it sound."""
    for lease in _pool.request("GET", "/v1/leases").body:
        _pool.release(lease)

    def calm() -> bool:
        return {i["state"] for i in _pool.instances()} == {"idle"}

    eventually(calm, "the pool to recover from the test before")
    yield _pool
    assert_consistent(_pool)


@pytest.mark.parametrize("service", ["single", "web"])
def test_an_idle_instance_that_is_stopped_by_a_signal_is_replaced(
    pool: RunningPool, service: str
) -> None:
    """The kernel still accepts for it, so only a probe finds out."""
    (before,) = pool.instances(service)
    os.kill(before["pid"], signal.SIGSTOP)
    eventually(lambda: pool.instance(before["port"])["pid"] != before["pid"], "its replacement")
    pool.await_state(before["port"], "idle")
    assert ended(before["pid"])
    with pool.leased(service, wait=30) as lease:
        assert place(lease, service)["port"] == before["port"]
        if service == "single":
            assert ask_probe(lease, "echo", "single", text="x") == "x"


@pytest.mark.parametrize("found", ["by a probe", "when it is given back"])
def test_a_leased_instance_that_hangs_is_not_handed_to_the_next_lease(
    new_pool: PoolMaker, found: str
) -> None:
    interval = {"interval": "300ms", "timeout": "1s"} if found == "by a probe" else {}
    pool = new_pool.start({"single": PROBE | {"warm": 1, "max": 1, "readiness": interval}})
    lease = pool.lease("single")
    port = place(lease, "single")["port"]
    before = pool.instance(port)["pid"]
    os.kill(before, signal.SIGSTOP)
    if found == "by a probe":
        eventually(lambda: "instance does not work" in pool.log("pool-server"), "the probe")
        assert pool.instance(port)["state"] == "leased", "it is its holder's until that lets go"
        assert pool.instance(port)["pid"] == before
    else:
        _pass_time(1.2)
    pool.release(lease)
    with pool.leased("single", wait=60) as other:
        assert ask_probe(other, "echo", "single", text="x") == "x"
        assert pool.instance(port)["pid"] != before


def test_an_instance_killed_in_the_midst_of_a_session_serves_its_lease_again(
    pool: RunningPool,
) -> None:
    lease = pool.lease("single")
    port = place(lease, "single")["port"]
    pid = pool.instance(port)["pid"]
    with session(lease, "single") as stream:
        kill(pid)
        with pytest.raises((SocketpoolError, OSError)):
            _talk(stream)
    answer = eventually(lambda: _echo(lease), "the instance again")
    assert answer == "again"
    pool.release(lease)
    pool.await_state(port, "idle")


def _talk(stream: socket.socket) -> None:
    """Go on until the stream is cut."""
    while True:
        send_line_block(stream, "x" * 1000)
        if not stream.recv(1):
            raise ConnectionError("cut")


def _echo(lease: dict[str, Any]) -> str:
    try:
        return str(ask_probe(lease, "echo", "single", text="again"))
    except (SocketpoolError, OSError):
        return ""


def has_successor(pool: RunningPool, instance: dict[str, Any]) -> bool:
    """Whether another process runs in the place of the one that the instance had."""
    return pool.instance(instance["port"])["pid"] not in {0, instance["pid"]}


def test_a_killed_program_leaves_no_children_that_keep_its_port(new_pool: PoolMaker) -> None:
    """A master with a worker on its socket: the worker outlives a kill -9 of the master."""
    code = (
        "import os, socket, sys, time\n"
        "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
        "os.fork()\n"
        "while True: time.sleep(1)\n"
    )
    forking = WEB | {"command": ["{python}", "-c", code, "{host}", "{port}"], "warm": 1, "max": 1}
    pool = new_pool.start({"forking": forking}, instances=RETRY)
    for _ in range(2):
        (instance,) = pool.await_idle("forking", 1)
        (worker,) = psutil.Process(instance["pid"]).children()
        kill(instance["pid"])
        eventually(partial(ended, worker.pid), "the worker's end")
        eventually(partial(has_successor, pool, instance), "another")


def looping(flag: Path) -> dict[str, Any]:
    """A program that ends at once, saying why, until the flag is there."""
    code = (
        "import os, sys, http.server as h\n"
        "if not os.path.exists(sys.argv[3]): sys.exit('the reason is: no flag')\n"
        "h.HTTPServer((sys.argv[1], int(sys.argv[2])), h.BaseHTTPRequestHandler).serve_forever()\n"
    )
    return WEB | {"command": ["{python}", "-c", code, "{host}", "{port}", str(flag)], "warm": 1}


def test_a_crash_loop_is_halted_shown_with_its_reason_and_heals_by_itself(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    pool = new_pool.start(
        {"looping": looping(flag) | {"max": 1}, "probe": PROBE | {"warm": 1}},
        instances=RETRY | {"retry_most": "2s"},
    )
    (instance,) = pool.instances("looping")
    eventually(lambda: pool.instance(instance["port"])["failures"] >= 3, "three failures")
    shown = pool.await_state(instance["port"], "failed")
    assert any("the reason is: no flag" in line for line in shown["last_words"])
    told = run_tool("socketpool", "status", "--state-dir", pool.state).stdout
    assert "the reason is: no flag" in told
    answer = pool.request("POST", "/v1/leases", {"services": ["looping"], "wait": 200})
    assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    assert "failed" in answer.body["detail"]

    starts = pool.log(f"looping-{instance['port']}").count("the reason")
    assert starts < 100, "it is not started over and over"
    with pool.leased("probe") as lease:
        assert ask_probe(lease, "echo", text="x") == "x"
    flag.touch()
    healed = pool.await_state(instance["port"], "idle")
    assert healed["last_words"] == []
    with pool.leased("looping", wait=30):
        assert_consistent(pool)


def test_a_client_that_waits_while_the_last_instance_fails_is_told_at_once(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    pool = new_pool.start({"looping": looping(tmp_path / "flag") | {"warm": 0, "max": 1}})
    answer = pool.request("POST", "/v1/leases", {"services": ["looping"], "wait": 250})
    assert answer.status == 503
    assert "failed" in answer.body["detail"]


def test_a_thief_on_the_port_of_a_dead_instance_is_named_and_its_work_done_elsewhere(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start(
        {"probe": PROBE | {"warm": 1, "max": 2, "readiness": {"start": "5s"}}}, instances=RETRY
    )
    (instance,) = pool.instances("probe")
    pool.supervisorctl("stop", instance["instance"])
    pool.await_state(instance["port"], "stopped")
    with socket.create_server(("127.0.0.1", instance["port"])):
        pool.supervisorctl("start", instance["instance"])
        pool.await_state(instance["port"], "failed")
        others = eventually(
            lambda: [i for i in pool.instances() if i["state"] == "idle"], "another instance"
        )
        assert others[0]["port"] != instance["port"]
        with Traffic(pool, ("probe",), clients=1) as traffic:
            traffic.await_served(3)

        def named() -> bool:
            status = run_tool("socketpool", "status", "--state-dir", pool.state).stdout
            return f"port {instance['port']} is held by another program" in status and (
                f"process {os.getpid()}" in status
            )

        eventually(named, "the thief's name")
    eventually(
        lambda: {i["state"] for i in pool.instances()} == {"idle"}, "all to work or be given up"
    )
    eventually(lambda: pool.request("GET", "/v1/pool").body["foreign"] == [], "no more thief", 60)


def test_a_thief_on_a_port_before_the_start_is_avoided_and_named(new_pool: PoolMaker) -> None:
    ports = new_pool.ports()
    with socket.create_server(("127.0.0.1", ports.first)):
        pool = new_pool.start({"probe": PROBE | {"warm": 2}}, ports=ports)
        assert ports.first not in {i["port"] for i in pool.instances()}
        (foreign,) = eventually(lambda: pool.request("GET", "/v1/pool").body["foreign"], "its name")
        assert (foreign["port"], foreign["pid"]) == (ports.first, os.getpid())


def test_a_service_grows_under_load_and_shrinks_again_when_that_is_over(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start(
        {"probe": PROBE | {"warm": 1, "max": 12}, "other": PROBE | {"warm": 1, "max": 30}},
        instances={"shrink_after": "2s", "port_rest": "5m"},
    )
    first = {i["port"]: i["pid"] for i in pool.instances()}
    leases = [pool.lease("probe", wait=60) for _ in range(8)]
    assert_consistent(pool)
    assert len(pool.instances("probe")) >= 8
    grown = {i["port"] for i in pool.instances("probe")}
    for lease in leases:
        pool.release(lease)
    eventually(lambda: len(pool.instances("probe")) <= 1, "to shrink", 60)
    (left,) = pool.instances("probe")
    conf = {p.name for p in (pool.state / "conf.d").iterdir()}
    assert len(conf) == 2
    assert len(pool.supervisorctl("status").splitlines()) == 3
    assert {i["port"]: i["pid"] for i in pool.instances("other")}.items() <= first.items()

    given_up = grown - {left["port"]}
    others = [pool.lease("other", wait=60) for _ in range(6)]
    taken = {place(lease, "other")["port"] for lease in others}
    assert taken.isdisjoint(given_up), "a port rests before it serves another service"
    assert_consistent(pool)


HTTP = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        here = os.path.exists(sys.argv[3])
        self.send_response(200 if here and self.path == "/health" else 503)
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    "readiness",
    [
        {"kind": "http", "path": "/health"},
        {
            "kind": "exec",
            "exec": ["sh", "-c", 'test -e "$FLAG" && test "$1" = {port}', "x", "{port}"],
        },
    ],
    ids=["http", "exec"],
)
def test_a_program_is_ready_when_its_probe_says_so_and_replaced_when_it_no_longer_does(
    new_pool: PoolMaker, tmp_path: Path, readiness: dict[str, Any]
) -> None:
    flag = tmp_path / "flag"
    service = WEB | {
        "command": ["{python}", "-c", HTTP, "{host}", "{port}", str(flag)],
        "environment": {"FLAG": str(flag)},
        "readiness": readiness | {"interval": "200ms", "start": "60s"},
        "warm": 1,
        "max": 1,
    }
    pool = new_pool.start({"checked": service}, ready=False, instances=RETRY)
    port = pool.ports.first
    eventually(lambda: _connects(port), "the program to listen")
    assert "pool ready" not in pool.output
    flag.touch()
    pool.await_ready()
    before = pool.await_state(port, "idle")["pid"]
    flag.unlink()
    eventually(lambda: pool.instance(port)["pid"] not in {0, before}, "its replacement")
    assert pool.instance(port)["state"] == "starting"
    flag.touch()
    pool.await_state(port, "idle")


def test_an_overload_is_served_in_turn_and_leaves_nothing_behind(pool: RunningPool) -> None:
    """Many more clients than instances, each restarted after each lease."""
    with ThreadPoolExecutor(12) as clients:
        leases = [clients.submit(_lease_and_release, pool, "web") for _ in range(24)]
        ports = {lease.result() for lease in leases}
    assert len(ports) == 1
    with Traffic(pool, ("probe",), clients=10) as traffic:
        traffic.await_served(60)
    assert traffic.failures == []
    assert len(pool.instances("probe")) <= 2


def _lease_and_release(pool: RunningPool, service: str) -> int:
    with pool.leased(service, wait=200) as lease:
        return int(place(lease, service)["port"])


def test_a_probe_that_hangs_delays_nobody_and_leaves_nothing_running(new_pool: PoolMaker) -> None:
    hanging = WEB | {
        "readiness": {
            "kind": "exec",
            "exec": ["sh", "-c", "sleep 1000 & sleep 1000"],
            "timeout": "500ms",
            "start": "2s",
        },
        "warm": 4,
        "max": 4,
    }
    pool = new_pool.start({"hanging": hanging, "probe": PROBE | {"warm": 1}}, instances=RETRY)
    assert {i["state"] for i in pool.instances("hanging")} <= {"failed", "starting"}
    with Traffic(pool, ("probe",), clients=2) as traffic:
        traffic.await_served(20)
    assert traffic.failures == []


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("who", ["supervisord", "pool server"])
def test_a_stop_by_signal_is_an_outage_that_heals(pool: RunningPool, who: str) -> None:
    """SIGSTOP, some seconds, SIGCONT: nothing is lost, and nothing is taken for dead."""
    lease = pool.lease("single")
    pids = {i["port"]: i["pid"] for i in pool.instances()}
    stopped = pool.supervisord() if who == "supervisord" else psutil.Process(pool.server_pid())
    stopped.suspend()
    try:
        assert ask_probe(lease, "echo", "single", text="x") == "x", "services go on"
        if who == "supervisord":
            with pool.leased("probe") as other:
                assert ask_probe(other, "echo", text="x") == "x", "leases are granted"
        _pass_time(4)
    finally:
        stopped.resume()
    with Traffic(pool, ("probe",), clients=1) as traffic:
        traffic.await_served(5)
    assert pool.request("POST", f"/v1/leases/{lease['lease']}/renew").status == 200
    pool.release(lease)
    eventually(lambda: {i["state"] for i in pool.instances()} == {"idle"}, "calm")
    now = {i["port"]: i["pid"] for i in pool.instances()}
    assert {port: now.get(port) for port in pids} == pids, "nobody was replaced"


def _pass_time(seconds: float) -> None:
    """Longer than an instance's interval and time limit together, several times."""
    import time

    time.sleep(seconds)
