"""The lines of a session: greeting, progress, verdict."""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.errors import (
    ArchiveError,
    FileRefused,
    NoCapacity,
    NotAuthorised,
    ServiceFailed,
    SocketpoolError,
    TimedOut,
)
from socketpool.protocol.blocks import (
    read_line_block,
    send_file_block,
    send_line_block,
    write_file_block,
)
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import ProtocolError
from socketpool.protocol.session import (
    await_event,
    errors_of_service,
    greet,
    read_greeting,
    send_error,
    send_event,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, service = socket.socketpair()
    client.settimeout(10)
    service.settimeout(10)
    with client, service:
        yield client, service


def test_a_greeting_shows_the_token_and_waits_for_ready(pair: Any) -> None:
    client, service = pair
    send_event(service, "ready", session_time=90.0)
    assert greet(client, "tok") == 90
    assert read_greeting(service) == ("tok", "", "")


def test_a_greeting_names_its_step(pair: Any) -> None:
    client, service = pair
    send_event(service, "ready", session_time=90.0)
    greet(client, "tok", "0123456789abcdef" * 2, "vendor")
    assert read_greeting(service) == ("tok", "0123456789abcdef" * 2, "vendor")


@pytest.mark.parametrize(
    "step", [5, None, "a", "A" * 32, "a" * 33, "../" + "a" * 29, "a" * 31 + "\n"]
)
def test_a_step_that_is_no_identity_is_a_violation(pair: Any, step: object) -> None:
    client, service = pair
    send_line_block(client, json.dumps({"token": "tok", "step": step}))
    with pytest.raises(ProtocolError, match="32 hexadecimal digits"):
        read_greeting(service)


@pytest.mark.parametrize("seconds", [None, "1", 0, -1, 1e12, float("nan")])
def test_a_service_that_sets_no_sane_time_limit_is_not_waited_for(pair: Any, seconds: Any) -> None:
    client, service = pair
    send_event(service, "ready", session_time=seconds)
    with pytest.raises(ProtocolError):
        greet(client, "tok")


@pytest.mark.parametrize(
    "line", ["", "tok", "[]", '"tok"', "{}", '{"token": 5}', '{"token": null}', "[" * 60000, "nul"]
)
def test_a_greeting_without_a_token_is_a_violation(pair: Any, line: str) -> None:
    client, service = pair
    send_line_block(client, line)
    with pytest.raises(ProtocolError):
        read_greeting(service)


def test_progress_goes_to_who_wants_it_until_the_event_comes(pair: Any) -> None:
    client, service = pair
    seen: list[dict[str, Any]] = []
    for done in (1, 2):
        send_event(service, "progress", done=done, total=2, text="x")
    send_event(service, "done", detail={"a": 1})
    assert await_event(client, "done", seen.append)["detail"] == {"a": 1}
    assert [message["done"] for message in seen] == [1, 2]


def test_progress_that_nobody_wants_is_skipped(pair: Any) -> None:
    client, service = pair
    send_event(service, "progress", done=1, total=1)
    send_event(service, "done")
    assert await_event(client, "done")["event"] == "done"


@pytest.mark.parametrize("event", ["ready", "surprise", "", None, 5, ["done"]])
def test_an_event_out_of_turn_is_a_violation(pair: Any, event: Any) -> None:
    client, service = pair
    send_line_block(service, json.dumps({"event": event}))
    with pytest.raises(ProtocolError, match="expected 'done'"):
        await_event(client, "done")


@pytest.mark.parametrize(
    ("error", "arrives_as"),
    [
        (ServiceFailed("m", hint="h"), ServiceFailed),
        (NotAuthorised("m", hint="h"), NotAuthorised),
        (ArchiveError("m", hint="h"), ArchiveError),
        (FileRefused("m", hint="h"), FileRefused),
        (TimedOut("m", hint="h"), TimedOut),
        (ProtocolError("m", hint="h"), ServiceFailed),
        (NoCapacity("m", hint="h"), ServiceFailed),
        (SocketpoolError("m", hint="h"), ServiceFailed),
    ],
)
def test_an_error_keeps_its_class_message_and_hint(
    pair: Any, error: SocketpoolError, arrives_as: type[SocketpoolError]
) -> None:
    client, service = pair
    send_error(service, error)
    with pytest.raises(arrives_as) as caught:
        await_event(client, "done")
    assert type(caught.value) is arrives_as
    assert (caught.value.message, caught.value.hint) == ("m", "h")


@pytest.mark.parametrize("size", [5000, 200_000])
def test_an_error_of_any_length_gets_through(pair: Any, size: int) -> None:
    client, service = pair
    send_error(service, ServiceFailed("é" * size, hint="h" * size))
    with pytest.raises(ServiceFailed, match="^" + "é" * 1000):
        await_event(client, "done")


def test_an_error_that_says_nothing_is_still_a_failure_of_the_service(pair: Any) -> None:
    client, service = pair
    send_line_block(service, '{"event": "error"}')
    with pytest.raises(ServiceFailed):
        await_event(client, "done")


def test_events_are_one_line_of_json(pair: Any) -> None:
    client, service = pair
    send_event(service, "progress", text="a\nb")
    assert json.loads(read_line_block(client)) == {"event": "progress", "text": "a\nb"}


@pytest.mark.parametrize("sending", [True, False])
def test_a_service_that_fails_in_place_of_a_file_s_transfer_is_heard(
    pair: Any, tmp_path: Path, sending: bool
) -> None:
    client, service = pair
    transfer = partial(send_file_block, client, OpenFile(0, 0))
    if not sending:
        transfer = partial(write_file_block, client, tmp_path / "file", max_size=1)
    send_error(service, ServiceFailed("nothing was processed", hint="run vendor"))
    with pytest.raises(ServiceFailed, match="nothing was processed") as caught, errors_of_service():
        transfer()
    assert caught.value.hint == "run vendor"


@pytest.mark.parametrize("line", ['{"event": "progress"}', "{}", "[]", "hello"])
def test_any_other_line_in_place_of_a_file_is_a_violation(
    pair: Any, tmp_path: Path, line: str
) -> None:
    client, service = pair
    send_line_block(service, line)
    with pytest.raises(ProtocolError), errors_of_service():
        write_file_block(client, tmp_path / "file", max_size=1)
