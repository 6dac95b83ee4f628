"""Clients by name: their tokens, their quotas, and the histories of their requests."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import yaml

from socketpool.config.clients import token_hash
from socketpool.credentials.tokens import LeaseClaim, LeaseTokens
from socketpool.errors import NotAuthorised
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, kill, run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

ACME, SHOP = "token-of-acme-" + "a" * 20, "token-of-shop-" + "s" * 20
SERVICES = {"probe": PROBE | {"warm": 2, "max": 2}, "web": WEB | {"warm": 1, "max": 1}}
CLIENTS = {
    "acme": {"token": token_hash(ACME), "services": ["probe"], "leases": 1, "ttl": "5s"},
    "shop": {"token": token_hash(SHOP)},
}


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(SERVICES, clients=CLIENTS)


def test_a_client_is_shown_only_what_is_for_it(pool: RunningPool) -> None:
    names = [s["service"] for s in pool.request("GET", "/v1/services", token=ACME).body]
    assert names == ["probe"]
    with pool.leased("probe") as others:
        assert pool.request("GET", "/v1/leases", token=ACME).body == []
        assert pool.request("GET", "/v1/instances", token=ACME).body == []
        path = f"/v1/leases/{others['lease']}"
        for method, at in (("GET", path), ("POST", path + "/renew"), ("DELETE", path)):
            assert pool.request(method, at, token=ACME).status == 404
        assert pool.request("GET", path + "/story", token=ACME).status == 404
        assert pool.request("GET", path).status == 200


def test_a_client_is_held_to_its_services_and_quotas(pool: RunningPool) -> None:
    def ask(service: str) -> tuple[int, dict[str, object]]:
        body = {"services": [service], "ttl": 60, "wait": 5}
        answer = pool.request("POST", "/v1/leases", body, token=ACME)
        return answer.status, answer.body

    status, details = ask("web")
    assert (status, details["code"]) == (403, "service-forbidden")
    status, lease = ask("probe")
    assert (status, lease["ttl"]) == (201, 5)
    answer = pool.request("POST", "/v1/leases", {"services": ["probe"], "wait": 0.2}, token=ACME)
    assert (answer.status, answer.body["code"]) == (429, "quota-exceeded")
    assert int(answer.headers["retry-after"]) > 0
    path = f"/v1/leases/{lease['lease']}"
    assert pool.request("DELETE", path, token=SHOP).status == 404
    assert pool.request("DELETE", path, token=ACME).status == 204


def test_a_client_at_its_quota_waits_for_its_own_lease_to_end(pool: RunningPool) -> None:
    body = {"services": ["probe"], "wait": 60}
    first = pool.request("POST", "/v1/leases", body, token=ACME)
    assert first.status == 201
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.request, "POST", "/v1/leases", body, token=ACME)
        with pool.leased("probe", wait=0):
            assert not waiting.done(), "and holds nobody back meanwhile"
        pool.request("DELETE", f"/v1/leases/{first.body['lease']}", token=ACME)
        second = waiting.result(60)
    assert second.status == 201
    pool.request("DELETE", f"/v1/leases/{second.body['lease']}", token=ACME)


def test_a_token_made_by_the_command_opens_the_pool(new_pool: PoolMaker, tmp_path: Path) -> None:
    made = run_tool("socketpool", "token", "new", "builder", "-o", tmp_path / "token")
    assert made.returncode == 0, made.stderr
    assert made.stdout == ""
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    token = (tmp_path / "token").read_text().strip()
    assert token not in made.stderr
    snippet = made.stderr[made.stderr.index("clients:") : made.stderr.index("The client keeps")]
    clients = yaml.safe_load(snippet)["clients"]
    pool = new_pool.start({"probe": PROBE}, clients=clients)
    place = ("--pool", f"{pool.host}:{pool.port}", "--token-file", tmp_path / "token")
    leased = run_tool("socketpool", "lease", "probe", "--json", *place)
    assert leased.returncode == 0, leased.stderr
    history = run_tool("socketpool", "explain", json.loads(leased.stdout)["lease"], *place)
    assert "by builder" in history.stdout
    assert "lives" in history.stdout
    again = run_tool("socketpool", "token", "new", "builder", "-o", tmp_path / "token")
    assert again.returncode == 2
    assert (tmp_path / "token").read_text().strip() == token


def test_explain_tells_of_waiting_renewal_end_and_refusal(pool: RunningPool) -> None:
    def explain(reference: str) -> str:
        done = run_tool("socketpool", "explain", reference, "--state-dir", pool.state)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = pool.lease("web")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(pool.lease, "web", wait=60)
        refused = run_tool("socketpool", "lease", "web", "--wait", "0.2", "--state-dir", pool.state)
        pool.request("POST", f"/v1/leases/{first['lease']}/renew")
        pool.release(first)
        second = waiting.result(60)
    told = explain(first["lease"])
    assert "renewed  1 times" in told
    assert "released" in told
    assert "behind 0" in explain(second["lease"])
    assert refused.returncode == 4
    reference = refused.stderr.rpartition("socketpool explain ")[2].rstrip(")\n")
    assert "refused" in explain(reference)
    pool.release(second)
    unknown = run_tool("socketpool", "explain", "never", "--state-dir", pool.state)
    assert unknown.returncode == 5


def test_leases_and_quotas_of_clients_outlive_the_pool_server(pool: RunningPool) -> None:
    answer = pool.request("POST", "/v1/leases", {"services": ["probe"], "ttl": 5}, token=ACME)
    assert answer.status == 201
    pid = pool.server_pid()
    kill(pid)
    pool.await_server(after=pid)
    assert [x["lease"] for x in pool.request("GET", "/v1/leases", token=ACME).body] == [
        answer.body["lease"]
    ]
    again = pool.request("POST", "/v1/leases", {"services": ["probe"], "wait": 0}, token=ACME)
    assert again.body["code"] == "quota-exceeded"
    assert pool.request("DELETE", f"/v1/leases/{answer.body['lease']}", token=ACME).status == 204


def test_a_thief_gets_nothing_with_tokens_that_are_not_for_it(pool: RunningPool) -> None:
    """Of the wrong kind, for another lease, made up, or of a lease that has ended."""
    tokens = LeaseTokens((pool.state / "lease.key").read_text().strip())
    with pool.leased("probe", ttl=60) as ended:
        claim = tokens.verify(ended["token"])
    with pool.leased("probe") as mine, pool.leased("probe") as other:
        own, others = tokens.verify(mine["token"]), tokens.verify(other["token"])
        made_up = LeaseTokens("another key").sign(others)
        mixed = [
            LeaseClaim(other["lease"], own.generation + 2),
            LeaseClaim(mine["lease"], others.generation + 1),
            LeaseClaim(f"../{mine['lease']}", others.generation),
            LeaseClaim(ended["lease"], claim.generation),
        ]
        for token in (mine["token"], ended["token"], made_up, pool.token, *map(tokens.sign, mixed)):
            with pytest.raises(NotAuthorised):
                ask_probe(other | {"token": token}, "write", name="stolen")
        assert ask_probe(other, "write", name="own") == ["lock", "own"]
        for token in (mine["token"], other["token"]):
            assert pool.request("GET", "/v1/leases", token=token).status == 401
    for method, path in (("POST", "/renew"), ("DELETE", ""), ("GET", "")):
        for lease in (ended, mine, other):
            answer = pool.request(method, f"/v1/leases/{lease['lease']}{path}", token=SHOP)
            assert (answer.status, answer.body["code"]) == (404, "no-such-lease")


def test_a_client_is_no_operator(pool: RunningPool) -> None:
    for path, body in (("/v1/drain", {"target": "probe"}), ("/v1/reload", None)):
        answer = pool.request("POST", path, body, token=SHOP)
        assert (answer.status, answer.body["code"]) == (403, "operator-only")
