"""A session on a service: the greeting that opens it and the verdict that closes it.

The client's first block is a line of JSON with its lease token; the service answers with a line,
then both sides do their part of the work, and the service closes with a verdict: done, or a typed
error.  Every line from the service is a JSON object with the key ``event``.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from socketpool.defaults import MAX_DURATION_SECONDS
from socketpool.errorregistry import SESSION_ERRORS
from socketpool.protocol.blocks import read_line_block, send_line_block
from socketpool.protocol.frames import ProtocolError, Stream
from socketpool.protocol.transfer import UnexpectedLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from socketpool.errors import SocketpoolError

STEP_ID = re.compile(r"[0-9a-f]{32}")
"""The form of a step's identity."""

FOR_THE_CLIENT: tuple[type[SocketpoolError], ...] = (*SESSION_ERRORS.classes, ProtocolError)
"""Errors whose message a service means for its client; others may name its files and settings."""


class Greeting(NamedTuple):
    """What a client says first."""

    token: str
    step: str
    """The identity of the step that the session is for; empty when the client names none."""
    client: str
    """The kind of service that the client is made for; empty for a client of another kind."""


def send_event(stream: Stream, event: str, **fields: Any) -> None:
    """One line from the service."""
    send_line_block(stream, json.dumps({"event": event, **fields}))


def send_error(stream: Stream, error: SocketpoolError) -> None:
    """Close the session with an error."""
    # As JSON a character can take twelve bytes, and both must fit into one line.
    send_event(
        stream,
        "error",
        code=SESSION_ERRORS.code_of(error),
        message=str(error.message)[:4096],
        hint=str(error.hint)[:1000],
    )


def greet(stream: Stream, token: str, step: str = "", client: str = "") -> float:
    """Open a session as a client; returns the seconds that it may last at most.

    ``step`` is the step's identity, 32 hexadecimal digits: a session that repeats a step after a
    cut names the same one.  ``client`` is the kind of the client, see `Greeting`.  Raises what the
    service answers.
    """
    optional = {"step": step, "client": client}
    greeting = {"token": token} | {name: said for name, said in optional.items() if said}
    send_line_block(stream, json.dumps(greeting))
    seconds = await_event(stream, "ready").get("session_time")
    if not isinstance(seconds, int | float) or not 0 < seconds <= MAX_DURATION_SECONDS:
        raise ProtocolError("the service does not say how long a session may last")
    return float(seconds)


def read_greeting(stream: Stream) -> Greeting:
    """The token a client shows, and its step; raises :class:`ProtocolError`."""
    greeting = _read_object(stream)
    token = greeting.get("token")
    step, client = greeting.get("step", ""), greeting.get("client", "")
    if not isinstance(token, str):
        raise ProtocolError("the greeting shows no token")
    if not isinstance(step, str) or (step and STEP_ID.fullmatch(step) is None):
        raise ProtocolError("the step's identity is not 32 hexadecimal digits")
    if not isinstance(client, str):
        raise ProtocolError("the kind of the client is not a text")
    return Greeting(token, step, client)


def send_answer(stream: Stream, answer: bool) -> None:  # noqa: FBT001 - that is what it is
    """Answer an event as a client: a block came, or one that is wanted will follow."""
    send_line_block(stream, json.dumps({"answer": answer}))


def read_answer(stream: Stream) -> bool:
    """The client's answer to an event."""
    answer = _read_object(stream).get("answer")
    if not isinstance(answer, bool):
        raise ProtocolError("the client does not answer what it was asked")
    return answer


def await_event(
    stream: Stream,
    wanted: str,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    others: Mapping[str, Callable[[], None]] | None = None,
) -> dict[str, Any]:
    """Read lines until ``wanted`` comes; progress goes to the callback, an error is raised.

    ``others`` handle the events of their names, and what travels after those.
    """
    while True:
        message = _read_object(stream)
        event = message.get("event")
        if event == wanted:
            return message
        if event == "error":
            raise _told(message)
        handle = others.get(str(event)) if others is not None else None
        if handle is not None:
            handle()
            continue
        if event != "progress":
            raise ProtocolError(f"expected {wanted!r}, the service sent {event!r}")
        if on_progress is not None:
            on_progress(message)


@contextmanager
def errors_of_service() -> Iterator[None]:
    """Raise the service's error when that comes in the place of a file."""
    try:
        yield
    except UnexpectedLine as line:
        message = _parse(line.text)
        if message.get("event") != "error":
            raise
        raise _told(message) from None


def _told(message: dict[str, Any]) -> SocketpoolError:
    return SESSION_ERRORS.rebuild(
        message.get("code"), str(message.get("message")), str(message.get("hint", ""))
    )


def _read_object(stream: Stream) -> dict[str, Any]:
    return _parse(read_line_block(stream))


def _parse(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("the peer sent a line that is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("the peer sent a line that is not a JSON object")
    return message
