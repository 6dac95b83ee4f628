"""Requests for leases on the wire: in one go they take the fast path, else the application.

Whoever asks must not notice which of them answered.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.pools import PROBE
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker, RunningPool


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection on which every byte is said by the test."""

    def __init__(self, pool: RunningPool) -> None:
        self.token = pool.token
        self.socket = socket.create_connection(("127.0.0.1", pool.port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self.socket.makefile("rb")

    def request(self, method: str, path: str, body: Any = None, *more: str) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: pool", f"Authorization: Bearer {self.token}"]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        return "\r\n".join([*lines, *more, "", ""]).encode() + data

    def create(self, *more: str, **ask: Any) -> bytes:
        return self.request("POST", "/v1/leases", {"services": ["probe"], **ask}, *more)

    def release(self, lease: str, *more: str) -> bytes:
        return self.request("DELETE", f"/v1/leases/{lease}", None, *more)

    def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)
            if len(pieces) > 1:
                time.sleep(
                    0.1
                )  # so that they arrive one by one, and the fast path does not wait for them

    def answer(self) -> Answer:
        status = self._reader.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        headers = {}
        while line := self._reader.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = self._reader.read(int(headers.get("content-length", 0)))
        return Answer(int(status.split()[1]), headers, body)

    def ask(self, *pieces: bytes) -> Answer:
        self.say(*pieces)
        return self.answer()

    def at_end(self) -> bool:
        return self._reader.read(1) == b""

    def close(self) -> None:
        self._reader.close()
        self.socket.close()


def shape(answer: Answer) -> Any:
    """What two answers to the same request have in common."""
    volatile = {"lease", "token", "created", "expires_in", "port", "instance", "reference"}

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: type(v).__name__ if k in volatile else bare(v) for k, v in value.items()}
        return [bare(v) for v in value] if isinstance(value, list) else value

    headers = {n: v for n, v in answer.headers.items() if n not in {"date", "content-length"}}
    return answer.status, headers, bare(answer.json) if answer.body else None


@pytest.mark.parametrize(
    "ask",
    [
        {},
        {"services": ["web", "probe", "web"]},
        {"services": ["nobody"]},
        {"services": []},
        {"services": ["probe"], "ttl": 0},
        {"services": ["web"] * 9, "wait": 0},
        {"services": ["probe"], "more": 1},
    ],
    ids=str,
)
def test_both_ways_answer_the_same(shared_pool: RunningPool, ask: dict[str, Any]) -> None:
    with closing(Wire(shared_pool)) as wire:
        request = wire.create(**ask)
        whole, in_pieces = wire.ask(request), wire.ask(request[:40], request[40:-5], request[-5:])
        for answer in (whole, in_pieces):
            if answer.status == 201:
                assert wire.ask(wire.release(answer.json["lease"])).status == 204
    assert shape(whole) == shape(in_pieces)


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "text/plain"])
def test_a_body_is_json_whatever_it_is_called(shared_pool: RunningPool, kind: str) -> None:
    """``curl -d`` calls it a form."""
    with closing(Wire(shared_pool)) as wire:
        named = wire.create()
        request = named.replace(b"application/json", kind.encode())
        for answer in (wire.ask(request), wire.ask(request[:-5], request[-5:])):
            assert answer.status == 201
            wire.ask(wire.release(answer.json["lease"]))


def test_an_unknown_lease_is_refused_the_same_both_ways(shared_pool: RunningPool) -> None:
    with closing(Wire(shared_pool)) as wire:
        request = wire.release("0123456789abcdef")
        whole, in_pieces = wire.ask(request), wire.ask(request[:30], request[30:])
    assert shape(whole) == shape(in_pieces)
    assert whole.status == 404


def test_pipelined_requests_are_answered_in_their_order(shared_pool: RunningPool) -> None:
    with closing(Wire(shared_pool)) as wire:
        health = wire.request("GET", "/livez")
        wire.say(wire.create() + health + wire.create() + wire.release("nobody") + health)
        first, live, second, unknown, last = [wire.answer() for _ in range(5)]
        assert [first.status, second.status, unknown.status] == [201, 201, 404]
        assert live.json == last.json == {"live": True}
        wire.say(*[wire.release(a.json["lease"]) for a in (first, second)])
        assert [wire.answer().status for _ in range(2)] == [204, 204]


def test_a_body_in_chunks_is_understood(shared_pool: RunningPool) -> None:
    body = b'{"services": ["probe"]}'
    with closing(Wire(shared_pool)) as wire:
        head = wire.request("POST", "/v1/leases", None, "Content-Type: application/json",
                            "Transfer-Encoding: chunked")  # fmt: skip
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        for answer in (wire.ask(head + chunks), wire.ask(head, chunks)):
            assert answer.status == 201
            wire.ask(wire.release(answer.json["lease"]))


def test_a_connection_that_is_to_close_is_closed_after_the_answer(shared_pool: RunningPool) -> None:
    with closing(Wire(shared_pool)) as wire:
        granted = wire.ask(wire.create("Connection: close"))
        assert granted.status == 201
        assert wire.at_end()
    with closing(Wire(shared_pool)) as wire:
        assert wire.ask(wire.release(granted.json["lease"], "Connection: close")).status == 204
        assert wire.at_end()


def test_a_client_that_expects_to_be_told_to_continue_is(shared_pool: RunningPool) -> None:
    with closing(Wire(shared_pool)) as wire:
        request = wire.create("Expect: 100-continue")
        head, _, body = request.partition(b"\r\n\r\n")
        wire.say(head + b"\r\n\r\n")
        assert wire.answer().status == 100
        granted = wire.ask(body)
        assert granted.status == 201
        wire.ask(wire.release(granted.json["lease"]))


@pytest.mark.parametrize("token", ["", "wrong", "x" * 5000])
def test_a_wrong_token_is_refused(shared_pool: RunningPool, token: str) -> None:
    with closing(Wire(shared_pool)) as wire:
        wire.token = token
        assert wire.ask(wire.create()).status == 401
        assert wire.ask(wire.release("0123456789abcdef")).status == 401


@pytest.mark.parametrize("size", [70_000, 200_000])
def test_a_body_too_large_is_refused_though_it_came_in_one_piece(
    shared_pool: RunningPool, size: int
) -> None:
    with closing(Wire(shared_pool)) as wire:
        assert wire.ask(wire.create(key="k" * size)).status == 413


@pytest.mark.parametrize(
    "path", ["/v1/leases/a/b", "/v1/leases/..", "/v1/leases/%41", "/v1/leasesx"]
)
def test_a_strange_path_is_left_to_the_application(shared_pool: RunningPool, path: str) -> None:
    with closing(Wire(shared_pool)) as wire:
        assert wire.ask(wire.request("DELETE", path)).status in {404, 405, 422}


def test_a_client_that_hangs_up_in_the_queue_is_not_waited_for(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    with closing(Wire(pool)) as holder, closing(Wire(pool)) as next_one:
        held = holder.ask(holder.create())
        leaver = Wire(pool)
        leaver.say(leaver.create(wait=30))
        time.sleep(0.3)
        next_one.say(next_one.create(wait=30))
        time.sleep(0.3)
        leaver.close()
        time.sleep(0.3)
        holder.ask(holder.release(held.json["lease"]))
        granted = next_one.answer()
        assert granted.status == 201
        assert [lease["lease"] for lease in pool.request("GET", "/v1/leases").body] == [
            granted.json["lease"]
        ]
        next_one.ask(next_one.release(granted.json["lease"]))
    pool.await_idle("probe", 1)


def test_who_waits_for_longer_than_an_idle_connection_may_last_is_answered(
    new_pool: PoolMaker,
) -> None:
    """The answer to a pipelined request must not start the clock for the one that waits."""
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    with closing(Wire(pool)) as holder, closing(Wire(pool)) as waiting:
        held = holder.ask(holder.create())
        waiting.say(waiting.release("nobody") + waiting.create(wait=3, key="late"))
        assert waiting.answer().status == 404
        refused = waiting.answer()
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        waiting.say(waiting.create(wait=30))
        holder.ask(holder.release(held.json["lease"]))
        assert waiting.answer().status == 201


def test_a_pool_that_stops_lets_nobody_hang_in_the_queue(new_pool: PoolMaker) -> None:
    pool = new_pool.start({"probe": PROBE | {"warm": 1, "max": 1}})
    with closing(Wire(pool)) as holder, closing(Wire(pool)) as waiting:
        assert holder.ask(holder.create()).status == 201
        waiting.say(waiting.create(wait=60))
        eventually(lambda: pool.instances("probe")[0]["state"] == "leased", "the lease")
        assert pool.stop() == 0
        assert waiting.socket.recv(65536)[:12] in {b"", b"HTTP/1.1 500", b"HTTP/1.1 503"}
    assert "Traceback" not in pool.log("pool-server")
