"""How often a step is tried again."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from socketpool.client.answers import LeasedService
from socketpool.client.attempts import MAX_CRASHES, MAX_CUTS, run_step
from socketpool.client.serviceclients import VendorClient
from socketpool.errors import ServiceCrashed
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import send_error, send_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.errors import SocketpoolError


class Service:
    """Answers each connection with some progress and then an error, or nothing more."""

    def __init__(self, events: Callable[[int], int], error: SocketpoolError | None = None) -> None:
        self.connections = 0
        self._events = events
        self._error = error
        self._kept: list[socket.socket] = []

    def close(self) -> None:
        for connection in self._kept:
            connection.close()

    def dial(self, _host: str, _port: int) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._kept.append(ours)  # closed now, it would reset the connection
        send_event(ours, "ready", session_time=60.0)
        for number in range(self._events(self.connections)):
            send_event(ours, "progress", done=number, total=100)
        if self._error is not None:
            send_error(ours, self._error)
        ours.shutdown(socket.SHUT_WR)
        self.connections += 1
        return theirs


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def run(service: Service) -> None:
    service_client = VendorClient()
    place = LeasedService(service="vendor", host="localhost", port=1, instance="vendor:1")
    service_client.assign(place, "token", service.dial, lambda *_: None)
    with closing(service):
        run_step(service_client, check_lease=lambda: None, note=lambda _: None)


def test_a_service_that_always_cuts_at_the_same_place_is_given_up() -> None:
    service = Service(lambda _: 3)
    with pytest.raises(ConnectionCut):
        run(service)
    assert service.connections == MAX_CUTS + 1


def test_a_service_that_gets_further_each_time_is_not_given_up() -> None:
    service = Service(lambda connection: connection + 1 if connection < MAX_CUTS * 3 else 0)
    with pytest.raises(ConnectionCut):
        run(service)
    assert service.connections > MAX_CUTS * 3


def test_a_service_that_crashes_is_tried_twice_more_whatever_its_progress() -> None:
    service = Service(lambda n: n + 1, ServiceCrashed("the service crashed (signal 11, SIGSEGV)"))
    with pytest.raises(ServiceCrashed, match="SIGSEGV") as caught:
        run(service)
    assert service.connections == MAX_CRASHES
    assert caught.value.exit_code == 7
