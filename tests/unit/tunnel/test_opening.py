"""Openings side by side; one that failed is repeated alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from socketpool.tunnel.opening import Openings


class Failed(Exception):
    pass


def test_many_are_under_way_at_once() -> None:
    openings, together = Openings(), threading.Barrier(8)
    with ThreadPoolExecutor(8) as workers:
        done = workers.map(
            lambda n: openings.run(lambda: (together.wait(30), n)[1], Failed), range(8)
        )
        assert list(done) == list(range(8))


def test_one_that_fails_is_repeated_while_no_other_is_under_way() -> None:
    openings = Openings()
    under_way: list[int] = []
    seen_beside: list[int] = []
    lock = threading.Lock()

    def act(number: int) -> int:
        def attempt() -> int:
            with lock:
                under_way.append(number)
            try:
                threading.Event().wait(0.01)
                if number % 2 == 0 and number not in tried:
                    tried.add(number)
                    raise Failed
                if number in tried:
                    with lock:
                        seen_beside.append(len(under_way) - 1)
                return number
            finally:
                with lock:
                    under_way.remove(number)

        return openings.run(attempt, Failed)

    tried: set[int] = set()
    with ThreadPoolExecutor(16) as workers:
        assert list(workers.map(act, range(64))) == list(range(64))
    assert seen_beside == [0] * 32


def test_what_fails_twice_is_raised_and_other_failures_at_once() -> None:
    openings, calls = Openings(), []

    def fail(error: Exception) -> None:
        calls.append(error)
        raise error

    with pytest.raises(Failed):
        openings.run(lambda: fail(Failed()), Failed)
    assert len(calls) == 2
    with pytest.raises(OSError, match="other"):
        openings.run(lambda: fail(OSError("other")), Failed)
    assert len(calls) == 3
    assert openings.run(lambda: "next", Failed) == "next"
