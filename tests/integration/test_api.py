"""The HTTP API of a real pool server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pools import WEB, ask_probe, connects, place
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker, RunningPool


def test_a_lease_has_the_services_in_the_order_asked(shared_pool: RunningPool) -> None:
    for names in (["probe", "web"], ["web", "probe"]):
        with shared_pool.leased(*names) as lease:
            assert [s["service"] for s in lease["services"]] == names
            assert set(lease) >= {"lease", "token", "ttl", "services"}
            for entry in lease["services"]:
                assert entry["host"] == shared_pool.host
                assert entry["port"] in shared_pool.ports
                assert entry["instance"].endswith(f":{entry['port']}")
                assert connects(entry["host"], entry["port"])


def test_what_is_leased_shows_in_leases_and_instances(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe", ttl=30) as lease:
        port = place(lease, "probe")["port"]
        listed = shared_pool.request("GET", "/v1/leases").body
        shown = shared_pool.request("GET", f"/v1/leases/{lease['lease']}").body
        assert lease["lease"] in [entry["lease"] for entry in listed]
        assert shown["services"] == lease["services"]
        assert 0 < shown["expires_in"] <= shown["ttl"] == 30
        assert "token" not in json.dumps([listed, shown])
        instance = shared_pool.instance(port)
        assert (instance["state"], instance["lease"]) == ("leased", lease["lease"])
    assert shared_pool.instance(port)["lease"] is None


def test_a_released_lease_is_no_more(shared_pool: RunningPool) -> None:
    lease = shared_pool.lease("probe")
    path = f"/v1/leases/{lease['lease']}"
    answer = shared_pool.request("DELETE", path)
    assert (answer.status, answer.body) == (204, b"")
    for method, target in (("GET", path), ("DELETE", path), ("POST", f"{path}/renew")):
        answer = shared_pool.request(method, target)
        assert (answer.status, answer.body["code"]) == (404, "no-such-lease"), method


def test_a_renewed_lease_has_its_whole_time_again(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe", ttl=20) as lease:
        path = f"/v1/leases/{lease['lease']}"
        eventually(lambda: shared_pool.request("GET", path).body["expires_in"] < 19.9, "ageing")
        before = shared_pool.request("GET", path).body["expires_in"]
        answer = shared_pool.request("POST", f"{path}/renew")
        assert answer.status == 200
        assert before < answer.body["expires_in"] <= 20


def test_a_lost_reply_asked_again_returns_the_same_lease(shared_pool: RunningPool) -> None:
    ask = {"services": ["probe", "web"], "key": "a-request-key"}
    first, again = (shared_pool.request("POST", "/v1/leases", ask) for _ in range(2))
    try:
        assert (first.status, again.status) == (201, 201)
        assert (first.body["lease"], first.body["token"]) == (
            again.body["lease"],
            again.body["token"],
        )
    finally:
        shared_pool.release(first.body)
    third = shared_pool.request("POST", "/v1/leases", ask).body
    shared_pool.release(third)
    assert third["lease"] != first.body["lease"], "the key's lease had ended"


def test_one_key_asked_at_the_same_time_gets_one_lease(shared_pool: RunningPool) -> None:
    ask = {"services": ["probe"], "key": "asked-by-many"}
    barrier = threading.Barrier(8)

    def lease(_: int) -> str:
        barrier.wait(10)
        answer = shared_pool.request("POST", "/v1/leases", ask)
        assert answer.status == 201, answer.body
        return str(answer.body["lease"])

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lease, range(8)))
    assert len(ids) == 1
    shared_pool.release({"lease": ids.pop()})


def test_a_key_with_another_request_is_a_conflict(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe", key="k1"):
        answer = shared_pool.request("POST", "/v1/leases", {"services": ["web"], "key": "k1"})
        assert (answer.status, answer.body["code"]) == (409, "key-reused")


def test_a_service_named_twice_is_leased_twice(shared_pool: RunningPool) -> None:
    with shared_pool.leased("web", "probe", "web") as lease:
        assert [s["service"] for s in lease["services"]] == ["web", "probe", "web"]
        assert len({s["port"] for s in lease["services"]}) == 3


def test_an_unknown_service_is_refused_with_the_known_ones(shared_pool: RunningPool) -> None:
    answer = shared_pool.request("POST", "/v1/leases", {"services": ["probe", "nope"]})
    assert (answer.status, answer.body["code"]) == (404, "unknown-service")
    assert "nope" in answer.body["detail"]
    assert "probe, web" in answer.body["hint"]
    assert answer.headers["content-type"] == "application/problem+json"


BAD_REQUESTS = {
    "no services": {},
    "empty services": {"services": []},
    "a text for services": {"services": "probe"},
    "numbers for services": {"services": [1]},
    "more of one service than there can be": {"services": ["web"] * 5},
    "too many services": {"services": [f"s{n}" for n in range(17)]},
    "a name too long": {"services": ["x" * 65]},
    "an empty name": {"services": [""]},
    "ttl zero": {"services": ["probe"], "ttl": 0},
    "ttl negative": {"services": ["probe"], "ttl": -1},
    "ttl enormous": {"services": ["probe"], "ttl": 1e300},
    "ttl a text": {"services": ["probe"], "ttl": "soon"},
    "ttl not a number": b'{"services": ["probe"], "ttl": NaN}',
    "ttl infinite": b'{"services": ["probe"], "ttl": Infinity}',
    "wait negative": {"services": ["probe"], "wait": -1},
    "wait enormous": {"services": ["probe"], "wait": 301},
    "key too long": {"services": ["probe"], "key": "k" * 129},
    "key a number": {"services": ["probe"], "key": 5},
    "key half a character": b'{"services": ["probe"], "key": "\\ud800"}',
    "unknown key": {"services": ["probe"], "hurry": True},
    "a list": [],
    "null": None,
    "not JSON": b"{",
    "empty": b"",
    "not UTF-8": b'{"services": ["\xff"]}',
    "nested without end": b"[" * 60_000,
}


@pytest.mark.parametrize("body", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_bad_request_is_refused_in_words(shared_pool: RunningPool, body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = shared_pool.request("POST", "/v1/leases", raw)
    assert answer.status in {400, 422}
    assert answer.body["code"] == "usage"
    assert answer.body["status"] == answer.status
    assert answer.body["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_time_beyond_the_maximum_is_cut_to_it(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe", ttl=100_000) as lease:
        assert lease["ttl"] == 3600
        assert lease["expires_in"] <= 3600


ENDPOINTS = [
    ("POST", "/v1/leases"),
    ("GET", "/v1/leases"),
    ("GET", "/v1/leases/x"),
    ("POST", "/v1/leases/x/renew"),
    ("DELETE", "/v1/leases/x"),
    ("GET", "/v1/services"),
    ("GET", "/v1/instances"),
    ("GET", "/no/such/path"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_without_the_token_everything_is_401(
    shared_pool: RunningPool, method: str, path: str
) -> None:
    for token in ("", "wrong", shared_pool.token[:-1], shared_pool.token + "x"):
        answer = shared_pool.request(method, path, b"{}", token=token)
        assert (answer.status, answer.body["code"]) == (401, "not-authorised")
        assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs"])
def test_health_and_documentation_need_no_token(shared_pool: RunningPool, path: str) -> None:
    assert shared_pool.request("GET", path, token="").status == 200


def test_the_documentation_loads_nothing_from_elsewhere(shared_pool: RunningPool) -> None:
    page = shared_pool.request("GET", "/docs").body.decode()
    assert "https://" not in page
    assert "//cdn" not in page


def test_the_api_describes_itself(shared_pool: RunningPool) -> None:
    paths = shared_pool.request("GET", "/openapi.json").body["paths"]
    assert {(m.upper(), p.replace("{lease_id}", "x")) for p in paths for m in paths[p]} >= set(
        ENDPOINTS[:-1]
    )


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/no/such/path", 404),
        ("PUT", "/v1/leases", 405),
        ("GET", "/v1/leases/" + "x" * 65, 422),
        ("GET", "/v1/leases/..%2f..%2fetc", 404),
        ("GET", "/v1/leases/%00", 404),
    ],
)
def test_what_is_not_there_is_a_problem_too(
    shared_pool: RunningPool, method: str, path: str, status: int
) -> None:
    answer = shared_pool.request(method, path)
    assert answer.status == status
    assert answer.body["status"] == status


def test_an_oversized_body_is_refused(shared_pool: RunningPool) -> None:
    answer = shared_pool.request("POST", "/v1/leases", b"x" * (64 << 10) + b"x")
    assert (answer.status, answer.body["code"]) == (413, "too-large")


def test_an_endless_body_is_cut_off(shared_pool: RunningPool) -> None:
    with socket.create_connection((shared_pool.host, shared_pool.port), 10) as stream:
        stream.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer " + shared_pool.token.encode() + b"\r\n\r\n"
        )
        received = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(64):
                stream.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            while part := stream.recv(1 << 16):
                received += part
    assert b" 413 " in received.splitlines()[0]


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00", b"GET /\r\n\r\n", b"\0" * 100])
def test_what_is_not_http_does_no_harm(shared_pool: RunningPool, noise: bytes) -> None:
    with socket.create_connection((shared_pool.host, shared_pool.port), 10) as stream:
        stream.sendall(noise)
    assert shared_pool.request("GET", "/livez").status == 200


def test_requests_follow_each_other_on_one_connection(shared_pool: RunningPool) -> None:
    connection = http.client.HTTPConnection(shared_pool.host, shared_pool.port, timeout=20)
    with contextlib.closing(connection):
        for path, status in (("/livez", 200), ("/v1/leases", 401), ("/readyz", 200)):
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == status
            response.read()


def test_services_and_their_instances_are_listed(shared_pool: RunningPool) -> None:
    services = {s["service"]: s for s in shared_pool.request("GET", "/v1/services").body}
    assert set(services) == {"probe", "web"}
    assert (services["probe"]["warm"], services["probe"]["max"]) == (4, 6)
    counted = {n: sum(s["instances"].values()) for n, s in services.items()}
    instances = shared_pool.instances()
    assert counted == {n: sum(i["service"] == n for i in instances) for n in services}


def test_supervisorctl_shows_the_pool_server_and_each_instance_by_port(
    shared_pool: RunningPool,
) -> None:
    shared_pool.await_idle("web", 2)
    status = {
        line.split()[0]: line.split()[1:]
        for line in shared_pool.supervisorctl("status").split("\n")
        if line
    }
    assert status["pool-server"][0] == "RUNNING"
    for instance in shared_pool.instances():
        service, port = instance["service"], instance["port"]
        assert instance["instance"] in status
        assert instance["instance"].partition(":")[0].partition(".")[0] == service
        assert instance["instance"].endswith(f":{port}")
        if instance["state"] in {"idle", "leased"}:
            assert status[instance["instance"]][:3] == ["RUNNING", "pid", f"{instance['pid']},"]


def test_a_plain_program_is_restarted_with_an_empty_workspace_between_leases(
    shared_pool: RunningPool,
) -> None:
    lease = shared_pool.lease("web")
    entry = place(lease, "web")
    before = shared_pool.instance(entry["port"])["pid"]
    left = shared_pool.state / "scratch" / str(entry["port"]) / "left.txt"
    left.write_text("a secret of this lease")
    connection = http.client.HTTPConnection(entry["host"], entry["port"], timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/left.txt")
        assert connection.getresponse().read() == b"a secret of this lease"
    shared_pool.release(lease)
    after = shared_pool.await_state(entry["port"], "idle")["pid"]
    assert after != before
    assert not left.exists()
    assert connects(entry["host"], entry["port"])


def test_an_sdk_service_is_not_restarted_between_leases(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe") as lease:
        port = place(lease, "probe")["port"]
        session, parent = ask_probe(lease, "pid")
    instance = shared_pool.instance(port)
    assert (instance["state"], instance["pid"]) == ("idle", parent)
    assert session != parent


def test_the_workspace_of_a_lease_is_private_and_gone_after_it(shared_pool: RunningPool) -> None:
    lease = shared_pool.lease("probe")
    assert "mine.txt" in ask_probe(lease, "write", name="mine.txt")
    root = shared_pool.state / "workspaces" / lease["lease"]
    assert root.stat().st_mode & 0o777 == 0o700
    shared_pool.release(lease)
    assert not root.exists()
    trash = shared_pool.state / "trash"
    eventually(lambda: not list(trash.iterdir()), "the trash to be emptied")
    with shared_pool.leased("probe") as other:
        assert "mine.txt" not in ask_probe(other, "write", name="other.txt")


def test_everything_in_the_state_directory_is_for_this_account_only(
    shared_pool: RunningPool,
) -> None:
    assert shared_pool.state.stat().st_mode & 0o777 == 0o700
    for name in ("token", "lease.key", "supervisor.sock"):
        assert (shared_pool.state / name).stat().st_mode & 0o077 == 0


def test_no_secret_is_in_any_log(shared_pool: RunningPool) -> None:
    with shared_pool.leased("probe") as lease:
        ask_probe(lease, "echo", text="x")
        secrets = [lease["token"], shared_pool.token]
    logs = [p.read_text(errors="replace") for p in (shared_pool.state / "logs").iterdir()]
    assert logs
    assert not any(secret in log for secret in secrets for log in logs)
    key = (shared_pool.state / "lease.key").read_text().strip()
    assert not any(key in log for log in logs)


def test_headers_without_end_are_cut_off(shared_pool: RunningPool) -> None:
    pool = shared_pool
    endless = b"GET /livez HTTP/1.1\r\nX: " + b"x" * (64 << 20)
    with (
        socket.create_connection((pool.host, pool.port), 10) as stream,
        pytest.raises(OSError, match=r"reset|[Bb]roken pipe"),
    ):
        stream.sendall(endless)
    assert pool.request("GET", "/livez").status == 200


def test_a_request_that_never_gets_to_its_end_is_dropped(shared_pool: RunningPool) -> None:
    pool = shared_pool
    with socket.create_connection((pool.host, pool.port), 60) as stream:
        stream.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        assert closed(stream)


def test_a_connection_that_asks_for_nothing_is_dropped(shared_pool: RunningPool) -> None:
    pool = shared_pool
    with socket.create_connection((pool.host, pool.port), 60) as stream:
        assert closed(stream)


def closed(stream: socket.socket) -> bool:
    """Wait for the other side to end the connection."""
    try:
        return stream.recv(1) == b""
    except ConnectionResetError:
        return True


def test_services_elsewhere_are_named_where_they_are(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"web": WEB | {"warm": 1}}, services_host="127.0.0.3")
    with pool.leased("web") as lease:
        entry = place(lease, "web")
        assert entry["host"] == "127.0.0.3"
        assert connects("127.0.0.3", entry["port"])


def test_missing_instances_are_told_when_the_pool_starts(new_pool: PoolMaker) -> None:
    ports = new_pool.ports()
    with contextlib.ExitStack() as taken:
        for port in ports:
            taken.enter_context(socket.create_server(("127.0.0.1", port)))
        pool = new_pool.start({"web": WEB | {"warm": 1}}, ports=ports)
        assert "1 instances of web could not be started" in pool.errors
        assert pool.request("GET", "/v1/instances").body == []
