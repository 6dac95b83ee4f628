"""The tunnel's lifecycle with connections that the test ends as it likes."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from socketpool.tunnel import reconnect
from socketpool.tunnel.failures import (
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    TargetRefused,
    TunnelDown,
    TunnelFailed,
)
from socketpool.tunnel.reconnect import Tunnel
from tests.support.waiting import eventually


class Link:
    """A connection that ends when it is told to."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.closed = 0
        self.failure: Exception | None = None
        self.bug: Exception | None = None

    def open(self, host: str, port: int) -> object:
        if self.failure is not None:
            raise self.failure
        return (self, host, port)

    def watch(self) -> None:
        assert self.ended.wait(30)
        if self.bug is not None:
            raise self.bug

    def close(self) -> None:
        self.closed += 1
        self.ended.set()


class Host:
    """Gives connections, or what it is told to raise."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def connect(self) -> Any:
        assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop(0)
        self.links.append(Link())
        return self.links[-1]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(reconnect, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def changes() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def tunnel(host: Host, changes: list[tuple[str, str]]) -> Any:
    made = Tunnel("acme", host.connect, lambda state, why: changes.append((str(state), why)))
    yield made
    host.gate.set()
    made.close()


def test_the_first_connection_is_not_tried_twice(tunnel: Tunnel, host: Host) -> None:
    host.failures = [HostUnreachable("no route")]
    with pytest.raises(HostUnreachable):
        tunnel.open()
    assert tunnel.state == "new"
    assert host.links == []


def test_a_lost_connection_is_made_again_until_it_is_there(
    tunnel: Tunnel, host: Host, changes: list[tuple[str, str]]
) -> None:
    tunnel.open()
    host.failures = [HostUnreachable("no route"), HostUnreachable("no route")]
    host.links[0].ended.set()
    eventually(lambda: len(host.links) == 2, "the second connection")
    eventually(lambda: tunnel.state == "up", "up")
    assert host.links[0].closed
    assert changes == [
        ("up", ""),
        ("reconnecting", "the connection was lost"),
        ("reconnecting", "no route"),  # the same reason is not told again and again
        ("up", "connected again"),
    ]


def test_a_stream_waits_for_the_connection(tunnel: Tunnel, host: Host) -> None:
    tunnel.open()
    host.gate.clear()
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "reconnecting", "the loss")
    threading.Timer(0.1, host.gate.set).start()
    assert cast("Any", tunnel.dial("h", 1))[0] is host.links[1]


def test_a_stream_that_finds_the_connection_lost_takes_the_next(tunnel: Tunnel, host: Host) -> None:
    tunnel.open()
    host.links[0].failure = TunnelDown("lost")
    threading.Timer(0.1, host.links[0].ended.set).start()
    assert cast("Any", tunnel.dial("h", 1))[0] is host.links[1]


def test_a_port_that_refuses_is_not_tried_again(tunnel: Tunnel, host: Host) -> None:
    tunnel.open()
    host.links[0].failure = TargetRefused("closed")
    with pytest.raises(TargetRefused):
        tunnel.dial("h", 1)
    assert tunnel.state == "up"


@pytest.mark.parametrize("how", ["in time", "at once"])
def test_a_stream_waits_no_longer_than_it_may(
    tunnel: Tunnel, host: Host, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    tunnel.open()
    host.gate.clear()
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "reconnecting", "the loss")
    if how == "at once":
        threading.Timer(0.1, tunnel.stop_waiting).start()
    else:
        monkeypatch.setattr(reconnect, "DIAL_SECONDS", 0.1)
    with pytest.raises(TunnelDown):
        tunnel.dial("h", 1)


def test_a_refusal_ends_the_trying_and_is_told_to_everybody(tunnel: Tunnel, host: Host) -> None:
    tunnel.open()
    host.failures = [HostKeyRefused("changed")]
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "refused", "the refusal")
    for _ in range(2):
        with pytest.raises(HostKeyRefused):
            tunnel.dial("h", 1)
    assert len(host.links) == 1


@pytest.mark.parametrize(
    "surprise", [OSError(24, "Too many open files"), RuntimeError("no thread"), KeyError("bug")]
)
def test_what_nobody_foresaw_in_a_try_is_told_and_tried_again(
    tunnel: Tunnel, host: Host, changes: list[tuple[str, str]], surprise: Exception
) -> None:
    tunnel.open()
    host.failures = [surprise] * 3
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "up" and len(host.links) == 2, "up")
    assert tunnel.failure is None
    (told,) = [why for _, why in changes if type(surprise).__name__ in why]
    assert str(surprise) in told


def test_a_bug_in_what_keeps_it_up_is_its_end_and_not_a_wait_for_ever(
    tunnel: Tunnel, host: Host, changes: list[tuple[str, str]]
) -> None:
    tunnel.open()
    host.links[0].bug = ZeroDivisionError("a bug")
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "failed", "the end")
    assert isinstance(tunnel.failure, TunnelFailed)
    assert "ZeroDivisionError: a bug" in tunnel.failure.message
    eventually(lambda: changes[-1] == ("failed", str(tunnel.failure)), "being told")
    with pytest.raises(TunnelFailed):
        tunnel.dial("h", 1)
    eventually(lambda: host.links[0].closed > 0, "the connection's end")


def test_that_nobody_can_be_told_does_not_end_it(host: Host) -> None:
    def tell(_state: object, _why: str) -> None:
        raise BrokenPipeError

    tunnel = Tunnel("acme", host.connect, tell)
    tunnel.open()
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "up" and len(host.links) == 2, "up")
    tunnel.close()


@pytest.mark.parametrize("state", ["up", "reconnecting", "refused", "failed"])
def test_closing_leaves_no_connection_open(tunnel: Tunnel, host: Host, state: str) -> None:
    tunnel.open()
    if state == "reconnecting":
        host.gate.clear()
    if state == "refused":
        host.failures = [HostKeyRefused("changed")]
    if state == "failed":
        host.links[0].bug = ZeroDivisionError("a bug")
    if state != "up":
        host.links[0].ended.set()
    eventually(lambda: tunnel.state == state, state)
    threading.Timer(0.1, host.gate.set).start()
    tunnel.close()
    tunnel.close()
    assert tunnel.state == "closed"
    eventually(lambda: all(link.closed for link in host.links), "every connection closed")
    with pytest.raises(TunnelDown):
        tunnel.dial("h", 1)


def test_a_login_that_is_refused_is_tried_again_until_it_is_accepted(
    tunnel: Tunnel, host: Host, changes: list[tuple[str, str]]
) -> None:
    tunnel.open()
    host.failures = [LoginRefused("no key"), HostUnreachable("no route"), LoginRefused("no key")]
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "up" and len(host.links) == 2, "up")
    assert changes[2] == ("reconnecting", "no key; tried again for 1h after the loss (--give-up)")


def test_a_login_that_stays_refused_is_given_up(host: Host) -> None:
    tunnel = Tunnel("acme", host.connect, give_up=0.1)
    tunnel.open()
    host.failures = [LoginRefused("no key")] * 1000
    host.links[0].ended.set()
    eventually(lambda: tunnel.state == "refused", "the end")
    assert isinstance(tunnel.failure, LoginRefused)
    assert len(host.failures) < 999
    tunnel.close()
