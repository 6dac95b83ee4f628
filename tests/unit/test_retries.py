"""How long a client waits for a pool server that vanished or refuses, and for which not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.client import retries
from socketpool.client.api import PoolClient
from socketpool.client.retries import RESTART_SECONDS, RetryBudget, parse_retry_after
from socketpool.errors import NoCapacity, NotAuthorised, PoolUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = b""
"""In place of an answer: the connection is closed."""


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def patience(self, wait: float = 0.0) -> RetryBudget:
        return RetryBudget(wait, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(("wait", "most"), [(0.0, RESTART_SECONDS), (30.0, 30.0)])
def test_a_server_that_vanished_has_time_for_a_restart(wait: float, most: float) -> None:
    clock = Time()
    patience = clock.patience(wait)
    while patience.after_cut():
        pass
    assert most - 1 < sum(clock.pauses) <= most
    assert clock.pauses[0] <= 0.05
    assert max(clock.pauses) <= 0.5
    assert patience.cuts == len(clock.pauses) + 1


def test_a_refusal_is_repeated_after_the_time_the_server_names_within_the_wait() -> None:
    clock = Time()
    patience = clock.patience(12.0)
    assert patience.wait == 12.0
    assert patience.after_refusal(5.0)
    assert 5.0 <= clock.pauses[0] <= 6.25
    assert patience.wait == pytest.approx(12.0 - clock.pauses[0])
    assert not patience.after_refusal(7.0)
    assert len(clock.pauses) == 1
    assert not Time().patience().after_refusal(1.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5.0), ("0", 0.1), ("9" * 400, 999999.0), (None, None), ("soon", None), ("²", None)],
)
def test_only_seconds_are_taken_from_the_header(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


LIVE = answer(200, {"live": True})
NOT_FOUND = answer(404, {"code": "no-such-lease", "detail": "no such lease"})
REFUSED = answer(503, {"code": "no-capacity", "detail": "full"}, Retry_After="0")
OVER_QUOTA = answer(429, {"code": "quota-exceeded", "detail": "1 leases"}, Retry_After="0")
GRANTED = answer(
    201,
    {
        "lease": "abc",
        "token": "t",
        "ttl": 60,
        "services": [{"service": "web", "host": "127.0.0.1", "port": 21000, "instance": "web:1"}],
    },
)


class Scripted:
    """A server that gives one answer after the other, each on a connection of its own."""

    def __init__(self, listener: socket.socket, answers: list[bytes]) -> None:
        self.port = listener.getsockname()[1]
        self.bodies: list[dict[str, Any]] = []
        self._listener = listener
        self._answers = answers
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        for text in self._answers:
            stream, _ = self._listener.accept()
            with stream:
                head, _, body = stream.recv(65536).partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0] or 0)
                while len(body) < length:
                    body += stream.recv(65536)
                self.bodies.append(json.loads(body or b"{}"))
                stream.sendall(text)


@contextmanager
def server(*answers: bytes) -> Iterator[tuple[Scripted, PoolClient]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        scripted = Scripted(listener, list(answers))
        with closing(PoolClient("127.0.0.1", scripted.port, "t")) as client:
            yield scripted, client
        scripted.thread.join(30)
        assert not scripted.thread.is_alive()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_wrong_address_fails_at_first_contact_and_says_so() -> None:
    client = PoolClient("127.0.0.1", free_port(), "t")
    with pytest.raises(PoolUnreachable, match="nothing listens at"):
        client.acquire(["web"], wait=300)
    with (
        server(GONE) as (_, client),
        pytest.raises(PoolUnreachable, match="does not answer as a pool server"),
    ):
        client.acquire(["web"], wait=300)


def test_a_lost_reply_is_asked_for_again_under_the_same_key() -> None:
    with server(LIVE, GONE, GONE, GRANTED) as (scripted, client):
        client.check_alive()
        assert client.acquire(["web"]).id == "abc"
    keys = {body["key"] for body in scripted.bodies[1:]}
    assert len(keys) == 1


def test_a_server_that_is_known_to_be_there_may_be_away_at_first_contact() -> None:
    port = free_port()
    made: list[PoolClient] = []

    def ask() -> None:
        with closing(PoolClient("127.0.0.1", port, "t", known=True)) as client:
            client.check_alive()
            made.append(client)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.3)  # it has met with a refusal by then, if the machine isn't too busy
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(30)
        Scripted(listener, [LIVE]).thread.join(30)
    thread.join(30)
    assert made


def test_a_refusal_is_repeated_with_what_is_left_of_the_wait() -> None:
    with server(REFUSED, OVER_QUOTA, GRANTED) as (scripted, client):
        assert client.acquire(["web"], wait=20).id == "abc"
    waits = [body["wait"] for body in scripted.bodies]
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < 20


def test_a_caller_who_does_not_wait_is_refused_at_once() -> None:
    with server(REFUSED) as (_, client), pytest.raises(NoCapacity, match="full"):
        client.acquire(["web"], wait=0)


def test_a_release_whose_reply_was_lost_has_succeeded() -> None:
    with server(LIVE, GONE, NOT_FOUND, NOT_FOUND) as (_, client):
        client.check_alive()
        client.release("abc")
        with pytest.raises(NotAuthorised):
            client.release("abc")


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "RESTART_SECONDS", 0.3)
    client = PoolClient("127.0.0.1", free_port(), "t", known=True)
    with pytest.raises(PoolUnreachable, match="nothing listens at"):
        client.renew("abc")
