"""What instances tell the pool server, and that nobody is held up by it."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from socketpool.supervision.notify import (
    ALIVE,
    READY,
    AliveSocket,
    Message,
    ReadyMessages,
    say_ready,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_who_says_ready_is_known_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ReadyMessages(tmp_path / "n")) as messages:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        say_ready()
        say_ready()
        assert list(messages.receive()) == [Message(os.getpid(), READY)]


def test_an_instance_that_is_asked_answers_and_is_known_by_its_process(tmp_path: Path) -> None:
    with (
        closing(ReadyMessages(tmp_path / "n")) as messages,
        closing(AliveSocket(tmp_path / "a")) as alive,
    ):
        messages.ask(tmp_path / "a")
        assert list(messages.receive()) == []
        alive.answer()
        assert list(messages.receive()) == [Message(os.getpid(), ALIVE)]


def test_asking_one_that_does_not_answer_never_blocks(tmp_path: Path) -> None:
    with closing(ReadyMessages(tmp_path / "n")) as messages:
        with pytest.raises(OSError, match="No such file"):
            messages.ask(tmp_path / "a")
        with closing(AliveSocket(tmp_path / "a")), pytest.raises(BlockingIOError):
            ask_often(messages, tmp_path / "a")
        with pytest.raises(OSError, match="refused"):
            messages.ask(tmp_path / "a")


def ask_often(messages: ReadyMessages, path: Path) -> None:
    for _ in range(100_000):
        messages.ask(path)


def test_answering_one_that_does_not_listen_any_more_is_no_matter(tmp_path: Path) -> None:
    with closing(AliveSocket(tmp_path / "a")) as alive:
        alive.answer()  # nobody has asked
        with closing(ReadyMessages(tmp_path / "n")) as messages:
            messages.ask(tmp_path / "a")
        alive.answer()
        with closing(ReadyMessages(tmp_path / "n")) as messages:
            for _ in range(3):
                messages.ask(tmp_path / "a")
                alive.answer()
            assert len(list(messages.receive())) == 3
