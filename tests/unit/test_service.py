"""The server's side of a session: what every service does around its `transfer`."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.writer import Entry, write_archive
from socketpool.errors import ServiceFailed, TimedOut
from socketpool.protocol.session import await_event, send_event
from socketpool.rsi import ServiceServer, VendorServer
from socketpool.rsi.interfaces import NotLocked
from socketpool.rsi.runner.workspace import Workspace, WorkspaceLock
from socketpool.rsi.service import SessionLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    root = tmp_path / "abc"
    root.mkdir()
    return Workspace(root, 2000)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, service = socket.socketpair()
    client.settimeout(10)
    service.settimeout(10)
    with client, service:
        yield client, service


class Quick(ServiceServer):
    """Tries whether anybody else could work meanwhile."""

    def transfer(self) -> None:
        other = WorkspaceLock(self.workspace, wait_seconds=0)
        with pytest.raises(TimedOut):
            other.lock()


class Chatty(VendorServer):
    """Has much to report."""

    def transfer(self) -> None:
        for number in range(60):
            self.report(f"{number} " + "\U0001f600" * 600)


def test_transfer_runs_between_lock_and_unlock(here: Workspace, pair: list[socket.socket]) -> None:
    assert Quick(pair[1], here, SessionLimits()).run() == {}
    with WorkspaceLock(here, wait_seconds=0).locked():
        pass


class Locking(ServiceServer):
    """Uses the lock in every way it may, and leaves it locked."""

    def transfer(self) -> None:
        other = WorkspaceLock(self.workspace, wait_seconds=0)
        self.lock()
        with self.locked():
            self.lock()
            self.unlock()
        self.unlock()
        with pytest.raises(NotLocked):
            self.unlock()
        with pytest.raises(TimedOut):  # it is the session's own lock, still
            other.lock()
        self.lock()


def test_transfer_may_lock_again_and_never_unlocks_the_session(
    here: Workspace, pair: list[socket.socket]
) -> None:
    Locking(pair[1], here, SessionLimits()).run()
    with WorkspaceLock(here, wait_seconds=0).locked():
        pass


def test_a_step_waits_for_another_of_its_lease_and_then_gives_up(
    here: Workspace, pair: list[socket.socket]
) -> None:
    with WorkspaceLock(here, wait_seconds=0).locked(), pytest.raises(TimedOut):
        Quick(pair[1], here, SessionLimits(session_time=0.05)).run()


def test_progress_of_any_length_reaches_the_client(
    here: Workspace, pair: list[socket.socket]
) -> None:
    client, service = pair
    seen: list[str] = []
    Quick(service, here, SessionLimits()).progress(1, 2, "\U0001f600" * 100_000)
    send_event(service, "done")
    await_event(client, "done", lambda message: seen.append(message["text"]))
    assert seen == ["\U0001f600" * 1000]


def test_a_report_of_any_length_fits_into_the_verdict(
    here: Workspace, pair: list[socket.socket]
) -> None:
    client, service = pair
    (here.root / "a.html").write_text("x")
    write_archive(here.incoming, [Entry(b"a.html", False, here.root / "a.html")])
    send_event(service, "done", detail=Chatty(service, here, SessionLimits()).run())
    report = await_event(client, "done")["detail"]["report"]
    assert report[0].startswith("0 \U0001f600")
    assert len(report) >= 5


def test_a_vendor_without_an_upload_says_what_is_missing(
    here: Workspace, pair: list[socket.socket]
) -> None:
    with pytest.raises(ServiceFailed, match="nothing was uploaded") as caught:
        Chatty(pair[1], here, SessionLimits()).run()
    assert "upload before vendor" in caught.value.hint
