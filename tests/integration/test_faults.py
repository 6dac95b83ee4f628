"""What dies is replaced, what is lost is reclaimed, and nothing is leased twice."""

from __future__ import annotations

import json
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from socketpool.credentials.fence import Fence
from socketpool.errors import NoCapacity, NotAuthorised
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, belongings, connects, kill, place
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

SMALL = PROBE | {"warm": 1, "max": 2}
ONE = PROBE | {"warm": 1, "max": 1}
TWO = {"probe": SMALL, "web": WEB | {"warm": 1, "max": 2}}


@pytest.fixture(scope="module")
def _hardy_pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(
            TWO
            | {
                "pair": PROBE | {"warm": 2, "max": 2},
                "single": ONE,
                "cold": PROBE | {"warm": 0, "max": 3},
            }
        )


@pytest.fixture
def hardy_pool(_hardy_pool: RunningPool) -> RunningPool:
    """A pool for faults from which it has to recover; each test finds it recovered."""
    for lease in _hardy_pool.request("GET", "/v1/leases").body:
        _hardy_pool.release(lease)

    def calm() -> bool:
        return {i["state"] for i in _hardy_pool.instances()} == {"idle"}

    eventually(calm, "the pool to recover from the test before")
    return _hardy_pool


def test_an_idle_instance_that_was_killed_is_replaced_and_not_leased_while_dead(
    hardy_pool: RunningPool,
) -> None:
    pool = hardy_pool
    for victim in pool.instances("pair"):
        kill(victim["pid"])
        leases = [pool.lease("pair", wait=30) for _ in range(2)]
        for lease in leases:
            assert ask_probe(lease, "echo", "pair", text="alive") == "alive"
            pool.release(lease)
        replaced = pool.await_state(victim["port"], "idle")
        assert replaced["pid"] != victim["pid"]


def test_a_leased_instance_that_was_killed_serves_its_lease_again_and_is_then_renewed(
    hardy_pool: RunningPool,
) -> None:
    pool = hardy_pool
    lease = pool.lease("probe")
    entry = place(lease, "probe")
    first = pool.instance(entry["port"])["pid"]
    kill(first)
    eventually(lambda: connects(entry["host"], entry["port"]), "its replacement")
    assert ask_probe(lease, "echo", text="x") == "x"
    second = eventually(
        lambda: (pid := pool.instance(entry["port"])["pid"]) != first and pid, "another process"
    )
    pool.release(lease)
    assert pool.await_state(entry["port"], "idle")["pid"] not in {first, second}


def test_an_instance_stopped_with_supervisorctl_is_not_leased_until_it_is_started(
    hardy_pool: RunningPool,
) -> None:
    pool = hardy_pool
    (instance,) = pool.instances("single")
    pool.supervisorctl("stop", instance["instance"])
    pool.await_state(instance["port"], "stopped")
    answer = pool.request("POST", "/v1/leases", {"services": ["single"], "wait": 0.2})
    assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    pool.supervisorctl("start", instance["instance"])
    with pool.leased("single", wait=30) as lease:
        assert ask_probe(lease, "echo", "single", text="x") == "x"


def test_a_lease_that_is_not_renewed_is_reclaimed(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    lease = pool.lease("probe", "web", ttl=1)
    root = pool.state / "workspaces" / lease["lease"]
    assert ask_probe(lease, "echo", text="x") == "x"
    (root / "left.txt").write_text("x")
    path = f"/v1/leases/{lease['lease']}"
    eventually(lambda: pool.request("GET", path).status == 404, "the lease's end")
    assert not root.exists()
    assert pool.request("POST", f"{path}/renew").status == 404
    with pytest.raises(NotAuthorised):
        ask_probe(lease, "echo", text="x")
    for entry in lease["services"]:
        pool.await_state(entry["port"], "idle")


def test_renewal_keeps_a_lease_up_to_its_maximum_age(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": SMALL}, lease={"ttl": "1s", "max": "4s"})
    lease = pool.lease("probe", ttl=2)
    path = f"/v1/leases/{lease['lease']}"
    left: list[float] = []

    def ended_at_last() -> bool:
        answer = pool.request("POST", f"{path}/renew")
        if answer.status == 200:
            left.append(answer.body["expires_in"])
        return answer.status == 404

    eventually(ended_at_last, "the maximum age")
    assert max(left[:5]) > 1.5
    assert min(left) < 1, "renewals near the end get what is left"


def test_a_restart_of_the_pool_server_keeps_live_leases(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    lease = pool.lease("probe", "web", ttl=60, key="before")
    ask_probe(lease, "write", name="kept.txt")
    pids = {e["port"]: pool.instance(e["port"])["pid"] for e in lease["services"]}
    before = pool.server_pid()
    pool.supervisorctl("restart", "pool-server")
    pool.await_server(after=before)

    assert "kept.txt" in ask_probe(lease, "write", name="more.txt")
    for entry in lease["services"]:
        instance = pool.instance(entry["port"])
        assert (instance["state"], instance["lease"]) == ("leased", lease["lease"])
        assert instance["pid"] == pids[entry["port"]]
    again = pool.lease("probe", "web", key="before")
    assert (again["lease"], again["token"]) == (lease["lease"], lease["token"])
    assert pool.request("POST", f"/v1/leases/{lease['lease']}/renew").status == 200
    with pool.leased("probe", "web", wait=30) as other:
        mine = {e["port"] for e in lease["services"]}
        assert mine.isdisjoint(e["port"] for e in other["services"])
    pool.release(lease)
    for port in mine:
        pool.await_state(port, "idle")


def test_a_killed_pool_server_comes_back_with_its_leases(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    lease = pool.lease("probe", "web", ttl=60)
    released = pool.lease("probe")
    pool.release(released)
    client = pool.client()
    assert client.renew(lease["lease"]) > 0
    before = pool.server_pid()
    kill(before)
    pool.await_server(after=before)
    assert client.renew(lease["lease"]) > 0, "its kept connection was closed meanwhile"
    live = [entry["lease"] for entry in pool.request("GET", "/v1/leases").body]
    assert live == [lease["lease"]]
    assert ask_probe(lease, "echo", text="x") == "x"
    with pytest.raises(NotAuthorised):
        ask_probe(released, "echo", text="x")
    pool.release(lease)
    with pool.leased("probe", "web", wait=30) as other:
        assert ask_probe(other, "echo", text="x") == "x"


def test_generations_grow_across_restarts(hardy_pool: RunningPool) -> None:
    """A token of before can't be mistaken for one of after."""
    from socketpool.credentials.tokens import LeaseTokens

    pool = hardy_pool
    tokens = LeaseTokens((pool.state / "lease.key").read_text().strip())
    before = pool.lease("probe")
    pool.release(before)
    pid = pool.server_pid()
    kill(pid)
    pool.await_server(after=pid)
    with pool.leased("probe") as after:
        generations = [tokens.verify(lease["token"]).generation for lease in (before, after)]
    assert generations[0] < generations[1]


def test_a_lease_that_the_fence_does_not_admit_is_no_lease_after_a_restart(
    hardy_pool: RunningPool,
) -> None:
    pool = hardy_pool
    lease = pool.lease("probe", ttl=600)
    Fence.create(pool.state / "fence").bar([place(lease, "probe")["port"]])
    (pool.state / "workspaces" / "stray").mkdir()
    pid = pool.server_pid()
    kill(pid)
    pool.await_server(after=pid)
    assert pool.request("GET", f"/v1/leases/{lease['lease']}").status == 404
    pool.await_state(place(lease, "probe")["port"], "idle")
    eventually(lambda: not list((pool.state / "workspaces").iterdir()), "the stray to be swept")


def test_a_killed_supervisord_ends_everything(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    pool.lease("probe", "web")
    kill(pool.supervisord().pid)
    assert pool.process.wait(60) not in {0, None}
    pool.assert_nothing_left()


def test_a_killed_server_command_leaves_nothing(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    pool.lease("probe", "web")
    pool.process.send_signal(signal.SIGKILL)
    pool.process.wait(60)
    pool.assert_nothing_left()


def test_command_and_supervisord_killed_together_leave_nothing(new_pool: PoolMaker) -> None:
    """As the kernel does when memory runs out: nobody is left to tidy up."""
    pool = new_pool.start(TWO)
    pool.lease("probe", "web")
    supervisord = pool.supervisord()
    pool.process.send_signal(signal.SIGSTOP)
    supervisord.kill()
    pool.process.send_signal(signal.SIGKILL)
    pool.process.wait(60)
    pool.assert_nothing_left()


def test_after_a_crash_the_next_start_begins_afresh(new_pool: PoolMaker) -> None:
    pool = new_pool.start(TWO)
    lease = pool.lease("probe", ttl=600)
    token = pool.token
    pool.process.send_signal(signal.SIGKILL)
    pool.process.wait(60)
    pool.assert_nothing_left()
    again = new_pool.launch(pool.folder, pool.folder / "pool.yml", pool.ports)
    assert again.token == token, "clients keep their token"
    assert again.request("GET", "/v1/leases").body == []
    with again.leased("probe") as other:
        assert ask_probe(other, "echo", text="x") == "x"
        with pytest.raises(NotAuthorised):
            ask_probe(other | {"token": lease["token"]}, "echo", text="x")


def test_strays_of_a_crash_are_ended_by_the_next_start(new_pool: PoolMaker) -> None:
    """One that ignores SIGTERM and whose parent is gone, yet which is of this state directory."""
    import subprocess

    pool = new_pool.start({"probe": SMALL})
    url = f"unix://{pool.state / 'supervisor.sock'}"
    assert pool.stop() == 0
    stray = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"],
        env={"SUPERVISOR_SERVER_URL": url, "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
    )
    with stray:
        assert stray.stdout is not None
        assert stray.stdout.readline() == b"up\n"
        new_pool.launch(pool.folder, pool.folder / "pool.yml", pool.ports)
        assert stray.wait(10) == -signal.SIGKILL


def test_a_port_that_somebody_else_has_is_avoided(new_pool: PoolMaker) -> None:
    ports = new_pool.ports()
    with (
        socket.create_server(("127.0.0.1", ports.first)),
        socket.create_server(("0.0.0.0", ports.first + 2)),
    ):
        pool = new_pool.start({"probe": PROBE | {"warm": 3, "max": 3}}, ports=ports)
        used = [i["port"] for i in pool.instances()]
        assert used == [ports.first + 1, ports.first + 3, ports.first + 4]
        assert {i["state"] for i in pool.instances()} == {"idle"}


def test_a_port_taken_over_while_its_instance_was_dead_is_not_leased(
    hardy_pool: RunningPool,
) -> None:
    """That something answers on the port is not enough: it has to be the instance itself."""
    pool = hardy_pool
    (instance,) = pool.instances("single")
    pool.supervisorctl("stop", instance["instance"])
    pool.await_state(instance["port"], "stopped")
    with socket.create_server(("127.0.0.1", instance["port"])):
        pool.supervisorctl("start", instance["instance"])
        pool.await_state(instance["port"], "failed")
        answer = pool.request("POST", "/v1/leases", {"services": ["single"], "wait": 0.5})
        assert answer.status == 503
    pool.await_state(instance["port"], "idle")
    with pool.leased("single", wait=60) as lease:
        assert ask_probe(lease, "echo", "single", text="x") == "x"


BROKEN = {
    "import": PROBE | {"code": "import no_such_module\nclass Probe: pass\n"},
    "no-service": PROBE | {"code": "class Probe: pass\n"},
    "no-program": WEB | {"command": ["no-such-program", "{port}"]},
    "ends": WEB | {"command": ["sh", "-c", "echo something is wrong; exit 3"]},
    "deaf": WEB | {"command": ["sleep", "1000"], "readiness": {"start": "1s"}},
    "other-port": WEB
    | {
        "command": [
            "{python}",
            "-c",
            "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(999)",
        ],
        "readiness": {"start": "1s"},
    },
}
LOGGED = {
    "import": "no_such_module",
    "no-service": "must be a subclass of ServiceServer",
    "no-program": "can't run 'no-such-program'",
    "ends": "something is wrong",
}


def test_broken_services_are_shown_and_the_others_work(new_pool: PoolMaker) -> None:
    pool = new_pool.start(
        {n: s | {"warm": 1, "max": 1} for n, s in BROKEN.items()} | {"probe": SMALL}
    )
    states = {i["service"]: i for i in pool.instances()}
    assert {n: i["state"] for n, i in states.items()} == dict.fromkeys(BROKEN, "failed") | {
        "probe": "idle"
    }
    with pool.leased("probe") as lease:
        assert ask_probe(lease, "echo", text="x") == "x"
    for name in BROKEN:
        assert f"1 of 1 instances of {name} failed" in pool.errors
        answer = pool.request("POST", "/v1/leases", {"services": [name, "probe"], "wait": 0})
        assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    for name, words in LOGGED.items():
        assert words in pool.log(f"{name}-{states[name]['port']}")
    assert "leased" not in {i["state"] for i in pool.instances("probe")}, "nothing half granted"


def test_many_clients_at_once_never_share_an_instance_and_all_are_served(
    new_pool: PoolMaker,
) -> None:
    pool = new_pool.start(
        {"probe": PROBE | {"warm": 1, "max": 3}, "web": WEB | {"warm": 1, "max": 3}}
    )
    client = pool.client()
    lock = threading.Lock()
    held: dict[int, str] = {}
    served: list[str] = []

    def run(number: int) -> None:
        for turn in range(4):
            names = [["probe"], ["probe", "web"], ["web", "probe"]][(number + turn) % 3]
            lease = client.acquire(names, wait=120)
            with lock:
                for service in lease.services:
                    assert service.port not in held, (lease.id, held)
                    held[service.port] = lease.id
            answer: dict[str, Any] = {
                "token": lease.token,
                "services": [{"service": "probe", **_place(lease)}],
            }
            assert ask_probe(answer, "echo", text=lease.id) == lease.id
            with lock:
                for service in lease.services:
                    del held[service.port]
                served.append(lease.id)
            client.release(lease.id)
        client.close()

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(run, range(12)))
    assert len(served) == len(set(served)) == 48
    assert len(pool.instances("probe")) <= 3
    assert len(pool.instances("web")) <= 3


def _place(lease: Any) -> dict[str, Any]:
    service = lease["probe"]
    return {"host": service.host, "port": service.port}


def test_who_waits_gets_what_is_given_back(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    first = pool.lease("single")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.lease, "single", wait=60)
        pool.release(first)
        second = waiting.result(60)
    assert place(second, "single")["port"] == place(first, "single")["port"]
    assert second["lease"] != first["lease"]


def test_a_client_that_goes_while_it_waits_takes_nothing_with_it(hardy_pool: RunningPool) -> None:
    """Otherwise the instance stays leased to nobody for the whole time to live."""
    pool = hardy_pool
    first = pool.lease("single")
    ask = json.dumps({"services": ["single"], "wait": 60, "ttl": 600}).encode()
    with socket.create_connection((pool.host, pool.port), 10) as gone:
        gone.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
            % (pool.token.encode(), len(ask), ask)
        )
        gone.settimeout(0.5)
        with pytest.raises(TimeoutError):  # it waits
            gone.recv(1)
    pool.release(first)
    answer = pool.request("POST", "/v1/leases", {"services": ["single"], "wait": 3})
    assert answer.status == 201


def test_waiting_in_vain_is_no_capacity_with_a_time_to_try_again(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    pool.lease("single")
    answer = pool.request("POST", "/v1/leases", {"services": ["single"], "wait": 0.3})
    assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    assert int(answer.headers["retry-after"]) > 0
    assert "single" in answer.body["detail"]
    with pytest.raises(NoCapacity) as caught:
        pool.client().acquire(["single"], wait=0)
    assert caught.value.exit_code == 4


def test_the_pool_grows_to_its_maximum_when_clients_wait(hardy_pool: RunningPool) -> None:
    pool = hardy_pool
    assert pool.instances("cold") == []
    leases = [pool.lease("cold", wait=60) for _ in range(3)]
    assert len({place(lease, "cold")["port"] for lease in leases}) == 3
    assert len(pool.instances("cold")) == 3


def test_a_damaged_lease_store_stops_the_start_with_the_reason(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": SMALL})
    assert pool.stop() == 0
    (pool.state / "leases.sqlite").write_bytes(b"not a database" * 1000)
    again = new_pool.launch(pool.folder, pool.folder / "pool.yml", pool.ports, ready=False)
    assert again.process.wait(90) not in {0, None}
    assert "leases.sqlite" in again.errors
    again.assert_nothing_left()


def test_nothing_of_a_pool_runs_with_more_than_it_needs(hardy_pool: RunningPool) -> None:
    """No process of the pool but supervisord and the command listens where it should not."""
    pool = hardy_pool
    listening = set()
    for process in belongings(pool.state):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add((connection.laddr.ip, connection.laddr.port))
    expected = {("127.0.0.1", i["port"]) for i in pool.instances()} | {("127.0.0.1", pool.port)}
    assert listening == expected
