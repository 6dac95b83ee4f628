"""Sessions on services: who gets in, what they may take, and what a failure tells."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.credentials.tokens import LeaseClaim, LeaseTokens
from socketpool.errors import (
    NotAuthorised,
    ServiceCrashed,
    ServiceFailed,
    SocketpoolError,
    TimedOut,
)
from socketpool.protocol.blocks import read_line_block, send_line_block
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import await_event, greet
from tests.support.pools import PROBE, ask_probe, connects, ended, place, session
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

MIB = 1 << 20

LIMITED = PROBE | {
    "warm": 2,
    "max": 2,
    "limits": {
        "memory": 512 * MIB,
        "file_size": 2 * MIB,
        "session_time": "2s",
        "sessions": 2,
    },
}


@pytest.fixture(scope="module")
def limited_pool() -> Iterator[RunningPool]:
    from tests.support.pools import PoolMaker

    with PoolMaker() as maker:
        yield maker.start({"probe": LIMITED}, lease={"ttl": "30s", "max": "10m"})


@pytest.fixture
def lease(shared_pool: RunningPool) -> Iterator[dict[str, Any]]:
    with shared_pool.leased("probe") as made:
        yield made


def test_a_token_opens_a_session_again_and_again(lease: dict[str, Any]) -> None:
    assert [ask_probe(lease, "echo", text=str(n)) for n in range(3)] == ["0", "1", "2"]


def forged(lease: dict[str, Any], other: dict[str, Any], key: str) -> dict[str, str]:
    claim = LeaseTokens(key).verify(lease["token"])
    token: str = lease["token"]
    return {
        "empty": "",
        "nonsense": "nonsense",
        "truncated": token[:-1],
        "changed": token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        "another key's": LeaseTokens("guessed").sign(claim),
        "another lease's": other["token"],
        "an older generation's": LeaseTokens(key).sign(claim._replace(generation=0)),
        "a lease that never was": LeaseTokens(key).sign(LeaseClaim("0" * 16, claim.generation + 1)),
        "a path": LeaseTokens(key).sign(LeaseClaim("../workspaces/" + claim.lease, 1)),
        "too long": "x" * 60_000,
    }


def test_a_wrong_token_is_dropped_within_seconds(
    shared_pool: RunningPool, lease: dict[str, Any]
) -> None:
    key = (shared_pool.state / "lease.key").read_text().strip()
    entry = place(lease, "probe")
    with shared_pool.leased("probe") as other:
        for what, token in forged(lease, other, key).items():
            with socket.create_connection((entry["host"], entry["port"]), 10) as stream:
                stream.settimeout(15)
                with pytest.raises(NotAuthorised):
                    greet(stream, token)
                assert stream.recv(1) == b"", what


def test_a_silent_peer_is_dropped_by_the_handshake_limit(lease: dict[str, Any]) -> None:
    """After nothing, a byte, almost a header, half a line: all at once, to wait but once."""
    entry = place(lease, "probe")
    header = b"\x01\x01\0\0\0\0\0\0\0\x10"
    with contextlib.ExitStack() as open_ones:
        streams = []
        for sent in (b"", header[:1], header[:9], header + b"{"):
            stream = socket.create_connection((entry["host"], entry["port"]), 10)
            streams.append(open_ones.enter_context(stream))
            stream.settimeout(30)
            stream.sendall(sent)
        assert ask_probe(lease, "echo", text="meanwhile") == "meanwhile"
        for stream in streams:
            with pytest.raises((TimedOut, ConnectionCut)):
                await_event(stream, "ready")


def test_a_peer_that_types_slowly_is_dropped_too(lease: dict[str, Any]) -> None:
    """Each byte comes in time, all of them don't."""
    entry = place(lease, "probe")
    with socket.create_connection((entry["host"], entry["port"]), 10) as stream:
        stream.settimeout(0.3)
        stream.sendall(b"\x01\x01\0\0\0\0\0\0\xff\xff")
        deadline = time.monotonic() + 60
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() < deadline:
                stream.sendall(b" ")
                with contextlib.suppress(TimeoutError):
                    while stream.recv(1 << 16):
                        pass
                    break
        assert time.monotonic() < deadline, "never dropped"


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 4096, b"\0" * 99]
)
def test_a_peer_that_speaks_something_else_is_told_or_dropped(
    lease: dict[str, Any], noise: bytes
) -> None:
    entry = place(lease, "probe")
    with socket.create_connection((entry["host"], entry["port"]), 10) as stream:
        stream.settimeout(30)
        stream.sendall(noise)
        with pytest.raises((ServiceFailed, ConnectionCut)):
            await_event(stream, "ready")
    assert ask_probe(lease, "echo", text="x") == "x"


def test_the_token_of_a_released_lease_is_refused(shared_pool: RunningPool) -> None:
    lease = shared_pool.lease("probe")
    shared_pool.release(lease)
    with pytest.raises(NotAuthorised, match="ended"):
        ask_probe(lease, "echo", text="x")


def test_a_session_ends_soon_after_its_lease(shared_pool: RunningPool) -> None:
    lease = shared_pool.lease("probe")
    with session(lease, "probe") as stream:
        send_line_block(stream, '{"do": "sleep", "seconds": 600}')
        assert "sleeping" in read_line_block(stream)
        shared_pool.release(lease)
        with pytest.raises((ConnectionCut, NotAuthorised)):  # at work by then, or not yet
            await_event(stream, "done")


def test_a_failure_on_purpose_has_the_vendor_s_own_words(lease: dict[str, Any]) -> None:
    with pytest.raises(ServiceFailed) as caught:
        ask_probe(lease, "fail", message="the font is too small: 3 pt")
    assert caught.value.message == "the font is too small: 3 pt"
    assert caught.value.hint == "as asked"
    assert caught.value.exit_code == 7


def test_of_an_accident_only_the_type_is_told(
    shared_pool: RunningPool, lease: dict[str, Any]
) -> None:
    with pytest.raises(ServiceFailed) as caught:
        ask_probe(lease, "crash", secret="password=hunter2")
    told = f"{caught.value.message} {caught.value.hint}"
    assert "RuntimeError" in told
    assert lease["lease"] in told
    assert "hunter2" not in told
    service, _, port = place(lease, "probe")["instance"].partition(":")
    log = f"{service.partition('.')[0]}-{port}"
    eventually(lambda: "hunter2" in shared_pool.log(log), "the details in the operator's log")


def test_a_session_that_dies_hurts_nobody_else(
    shared_pool: RunningPool, lease: dict[str, Any]
) -> None:
    port = place(lease, "probe")["port"]
    before = shared_pool.instance(port)["pid"]
    with pytest.raises(ServiceCrashed, match="signal 9, SIGKILL"):
        ask_probe(lease, "die")
    assert ask_probe(lease, "echo", text="x") == "x"
    assert shared_pool.instance(port)["pid"] == before


def test_a_session_inherits_no_secret_of_the_server_s_environment(lease: dict[str, Any]) -> None:
    seen = ask_probe(lease, "environment")
    allowed = {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"}
    assert {n for n in seen if not n.startswith(("LC_", "SUPERVISOR_"))} <= allowed


def test_memory_beyond_the_limit_fails_the_session_alone(limited_pool: RunningPool) -> None:
    with limited_pool.leased("probe") as lease:
        assert ask_probe(lease, "allocate", size=50 * MIB) == 50 * MIB
        with pytest.raises(ServiceFailed, match="MemoryError"):
            ask_probe(lease, "allocate", size=1024 * MIB)
        assert ask_probe(lease, "echo", text="x") == "x"


def test_a_file_beyond_the_limit_fails_the_session_alone(limited_pool: RunningPool) -> None:
    with limited_pool.leased("probe") as lease:
        assert "ok" in ask_probe(lease, "write", name="ok", size=MIB)
        with pytest.raises(ServiceFailed, match="OSError"):
            ask_probe(lease, "write", name="big", size=3 * MIB)
        assert ask_probe(lease, "echo", text="x") == "x"
        root = limited_pool.state / "workspaces" / lease["lease"]
        assert (root / "big").stat().st_size <= 2 * MIB


def test_a_session_beyond_its_time_is_told_so(limited_pool: RunningPool) -> None:
    with limited_pool.leased("probe") as lease:
        with pytest.raises(TimedOut, match="longer than the service allows") as caught:
            ask_probe(lease, "sleep", seconds=600)
        assert caught.value.exit_code == 8
        assert ask_probe(lease, "echo", text="x") == "x"


def test_sessions_beyond_the_limit_wait_their_turn(limited_pool: RunningPool) -> None:
    with limited_pool.leased("probe") as lease, contextlib.ExitStack() as open_ones:
        for _ in range(2):
            open_ones.enter_context(session(lease, "probe"))
        entry = place(lease, "probe")
        with socket.create_connection((entry["host"], entry["port"]), 10) as third:
            third.settimeout(0.3)
            with pytest.raises(TimedOut):
                greet(third, lease["token"])
            open_ones.close()
            third.settimeout(30)
            await_event(third, "ready")


def test_two_steps_of_one_lease_don_t_work_at_the_same_time(lease: dict[str, Any]) -> None:
    with session(lease, "probe") as first, session(lease, "probe") as second:
        send_line_block(second, '{"do": "echo", "text": "second"}')
        second.settimeout(0.3)
        with pytest.raises(TimedOut):
            await_event(second, "done")
        send_line_block(first, '{"do": "echo", "text": "first"}')
        await_event(first, "done")
        second.settimeout(30)
        assert await_event(second, "done")["detail"]["answer"] == "second"


def test_a_program_that_a_session_left_behind_ends_with_the_session(
    lease: dict[str, Any],
) -> None:
    left = ask_probe(lease, "spawn")
    eventually(lambda: ended(left), "the end of what a session left behind")
    assert ask_probe(lease, "echo", text="x") == "x"


def test_strangers_can_not_take_the_sessions_of_who_has_a_token(lease: dict[str, Any]) -> None:
    """More of them than there are places for greeting: the oldest make room."""
    entry = place(lease, "probe")
    strangers = [socket.create_connection((entry["host"], entry["port"]), 5) for _ in range(100)]
    try:
        assert ask_probe(lease, "echo", text="x") == "x"
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_client_that_vanishes_frees_its_session(lease: dict[str, Any]) -> None:
    for _ in range(12):  # more than may be open at once
        with session(lease, "probe"):
            pass
    assert ask_probe(lease, "echo", text="x") == "x"


def test_every_error_of_a_session_is_one_the_commands_know(lease: dict[str, Any]) -> None:
    for do, fields in (("fail", {"message": "m"}), ("crash", {"secret": "s"}), ("die", {})):
        with pytest.raises(SocketpoolError) as caught:
            ask_probe(lease, do, **fields)
        assert caught.value.exit_code == 7
    entry = place(lease, "probe")
    assert connects(entry["host"], entry["port"])
