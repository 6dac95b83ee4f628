"""What waits to be read of a channel: in order, whole, and cheap however small its pieces are."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.buffered_pipe import PipeTimeout

from socketpool.tunnel.pipe import DELIVERED, MAX_PIECES, SMALL, Batch, Pipe
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence


def feed(pipe: Pipe, data: bytes) -> None:
    pipe.feed(memoryview(data))
    pipe.wake()


@given(
    fed=st.lists(st.one_of(st.binary(max_size=50), st.just(b"x" * SMALL)), max_size=20),
    sizes=st.lists(st.integers(1, 3 * SMALL), min_size=1, max_size=5),
    in_batches=st.booleans(),
)
def test_it_gives_what_it_was_fed_in_whatever_portions(
    fed: list[bytes], sizes: list[int], in_batches: bool
) -> None:
    pipe = Pipe()
    pipe.in_batches = in_batches
    got, turn = b"", 0
    for number, data in enumerate(fed):
        feed(pipe, data)
        if number % 3 == 0 and len(pipe):
            piece = pipe.read(sizes[turn % len(sizes)])
            assert 0 < len(piece) <= sizes[turn % len(sizes)]
            got, turn = got + bytes(piece), turn + 1
    assert len(pipe) == sum(map(len, fed)) - len(got)
    pipe.close()
    while piece := pipe.read(sizes[0]):
        got += bytes(piece)
    assert got == b"".join(fed)


def test_many_small_packets_are_kept_as_few_pieces() -> None:
    pipe = Pipe()
    pipe.in_batches = True
    for number in range(20_000):
        feed(pipe, bytes([number % 251]))
    batch = pipe.read(1 << 20)
    assert isinstance(batch, Batch)
    assert len(batch.pieces) < 10
    assert bytes(batch) == bytes(number % 251 for number in range(20_000))


def test_a_batch_is_never_more_than_one_system_call_takes() -> None:
    pipe = Pipe()
    pipe.in_batches = True
    for _ in range(MAX_PIECES + 10):
        feed(pipe, b"x" * SMALL)
    first, second = pipe.read(1 << 30), pipe.read(1 << 30)
    assert len(first) == MAX_PIECES * SMALL
    assert len(second) == 10 * SMALL


def test_who_waits_is_woken_and_who_waits_too_long_told() -> None:
    pipe = Pipe()
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.01)
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.0)
    threading.Timer(0.05, feed, (pipe, b"some")).start()
    assert pipe.read(100) == b"some"
    threading.Timer(0.05, pipe.close).start()
    assert pipe.read(100) == b""


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(0, 81))
def test_what_is_skipped_of_a_batch_is_its_front(pieces: list[bytes], count: int) -> None:
    whole = b"".join(pieces)
    count = min(count, len(whole))
    batch = Batch([memoryview(piece) for piece in pieces])
    batch.skip(count)
    assert bytes(batch) == whole[count:]
    assert len(batch) == len(whole) - count


class Outlet:
    """Takes only so much at once, as a socket does."""

    def __init__(self) -> None:
        self.room = 0
        self.got = b""

    def __call__(self, pieces: Sequence[memoryview]) -> int:
        if not self.room:
            raise BlockingIOError
        data = b"".join(pieces)[: self.room]
        self.room -= len(data)
        self.got += data
        return len(data)


def test_who_feeds_delivers_only_while_the_reader_waits_and_leaves_it_the_rest() -> None:
    pipe, outlet = Pipe(), Outlet()
    pipe.in_batches = True
    pipe.deliver_by(outlet)
    outlet.room = 100
    feed(pipe, b"nobody waits")
    assert outlet.got == b""
    got: list[int] = []

    def read() -> None:
        while batch := pipe.read(1 << 20):
            outlet.got += bytes(batch)
            got.append(len(batch))

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: pipe._waiting, "the reader")
    assert outlet.got == b"nobody waits"
    feed(pipe, b", " + b"x" * 80)
    assert outlet.got == b"nobody waits, " + b"x" * 80
    assert got == [12]  # the reader was not woken for that
    feed(pipe, b"y" * 40)
    eventually(lambda: pipe._waiting and len(got) == 2, "the reader again")
    assert outlet.got.endswith(b"x" + b"y" * 40)
    outlet.room = DELIVERED
    feed(pipe, b"z" * DELIVERED)
    eventually(lambda: pipe._waiting and len(got) == 3, "the reader to tell the host")
    feed(pipe, b"end")
    eventually(lambda: outlet.got.endswith(b"zend"), "the end")
    pipe.close()
    reader.join(30)
    # Every byte was accounted for once, whoever delivered it.
    assert sum(got) == len(outlet.got)
