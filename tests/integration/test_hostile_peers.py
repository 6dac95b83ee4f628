"""Peers that mean no good, in numbers: what they cost, and whom they keep out."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from socketpool.credentials.tokens import LeaseClaim, LeaseTokens
from socketpool.errors import NotAuthorised
from socketpool.protocol.blocks import send_line_block
from socketpool.protocol.frames import VERSION, Kind
from socketpool.protocol.session import await_event
from socketpool.rsi.runner.parent import MAX_GREETING
from socketpool.rsi.runner.sessionprocess import HANDSHAKE_SECONDS
from tests.support.aside import Aside
from tests.support.instances import Instance, running_instance
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = Path(__file__).parents[1] / "catalogue" / "probe" / "probe.py"
SESSIONS = 4
WRONG = 10_000
MIB = 1 << 20


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    with running_instance(tmp_path, PROBE, "Probe", sessions=SESSIONS) as made:
        yield made


def assert_works(instance: Instance, claim: LeaseClaim, timeout: float = 30) -> None:
    with instance.session(claim, timeout) as stream:
        send_line_block(stream, '{"do": "echo", "text": "x"}')
        assert await_event(stream, "done")["detail"]["answer"] == "x"


def refused(instance: Instance, greeting: bytes, times: int) -> int:
    """How many of so many attempts are refused in words."""
    count = 0
    for _ in range(times):
        with instance.connection() as stream:
            stream.sendall(greeting)
            try:
                await_event(stream, "ready")
            except NotAuthorised:
                count += 1
    return count


def test_ten_thousand_wrong_tokens_cost_the_instance_nothing_that_stays(
    instance: Instance,
) -> None:
    claim = instance.lease()
    assert_works(instance, claim)
    wrong = json.dumps({"token": LeaseTokens("guessed").sign(claim)}).encode()
    greeting = struct.pack(">BBQ", VERSION, Kind.LINE, len(wrong)) + wrong
    refused(instance, greeting, 100)  # whatever is made at first use is made by now
    parent = instance.parent
    eventually(lambda: not parent.children(), "the end of the last session")
    descriptors, memory = parent.num_fds(), parent.memory_full_info().uss
    most = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.05):
            most = max(most, len(parent.children()))

    watcher = Aside(watch)
    guessers = [Aside(refused, instance, greeting, WRONG // 4) for _ in range(4)]
    try:
        for guesser in guessers:
            guesser.join(500)
        assert sum(guesser.result() for guesser in guessers) == WRONG
    finally:
        over.set()
    watcher.result()
    assert_works(instance, claim)
    assert 0 < most <= SESSIONS + MAX_GREETING
    eventually(lambda: not parent.children(), "the end of the last session")
    assert parent.num_fds() == descriptors
    assert parent.memory_full_info().uss < memory + MIB
    assert parent.threads() == [parent.threads()[0]]
    assert [p.name for p in instance.workspaces.iterdir()] == [claim.lease]


def test_half_open_peers_keep_nobody_out_for_longer_than_a_handshake_may_last(
    instance: Instance,
) -> None:
    claim = instance.lease()
    with contextlib.ExitStack() as open_ones:
        for number in range(SESSIONS * 6):
            stream = open_ones.enter_context(instance.connection())
            stream.sendall(b"\x01\x01\0\0\0"[: number % 6])
        assert_works(instance, claim, HANDSHAKE_SECONDS * 2)


def test_half_open_peers_are_gone_in_the_end(instance: Instance) -> None:
    claim = instance.lease()
    with contextlib.ExitStack() as open_ones:
        streams = [open_ones.enter_context(instance.connection(120)) for _ in range(SESSIONS * 2)]
        for stream in streams:
            with contextlib.suppress(ConnectionResetError):
                while stream.recv(1 << 16):
                    pass
        assert_works(instance, claim)
    eventually(lambda: not instance.parent.children(), "the end of the last session")


def test_peers_that_connect_and_reset_leave_nothing(instance: Instance) -> None:
    claim = instance.lease()
    for _ in range(500):
        with instance.connection() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert_works(instance, claim)
    eventually(lambda: not instance.parent.children(), "the end of the last session")
