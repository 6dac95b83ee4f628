"""A stream on a channel whose connection fails: it fails as a socket does."""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

import pytest
from paramiko.ssh_exception import SSHException

from socketpool.tunnel.channel import TunnelStream
from socketpool.tunnel.pipe import Batch, Pipe


class Failing:
    """A channel of a connection that has just gone."""

    eof_received = False

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.in_buffer = Pipe()

    def __getattr__(self, name: str) -> Any:
        def fail(*_: object) -> None:
            raise self._error

        return fail


class Holding:
    """A channel that has some bytes, and then the end."""

    def __init__(self, data: bytes, *, eof: bool) -> None:
        self.in_buffer, self.eof_received = Pipe(), eof
        self.in_buffer.feed(memoryview(data))
        self.in_buffer.close()
        self.closed = 0

    def recv(self, size: int) -> bytes | Batch:
        return self.in_buffer.read(size)

    def send(self, data: memoryview) -> int:
        return min(len(data), 3) if not self.closed else 0

    def close(self) -> None:
        self.closed += 1


def stream_on(channel: object) -> TunnelStream:
    return TunnelStream(cast("Any", channel))


@pytest.mark.parametrize("error", [EOFError(), SSHException("timed out"), OSError("closed")])
def test_paramiko_s_errors_become_those_of_a_socket(error: Exception) -> None:
    """Above all EOFError, which click takes for Ctrl-C."""
    stream = stream_on(Failing(error))
    for act in (
        lambda: stream.recv(1),
        lambda: stream.sendall(b"x"),
        lambda: stream.shutdown(socket.SHUT_WR),
    ):
        with pytest.raises(OSError, match=r".*"):
            act()
    stream.shutdown(socket.SHUT_RDWR)
    stream.close()


def test_the_end_is_the_end_only_when_the_other_side_says_so() -> None:
    ended, cut = stream_on(Holding(b"abc", eof=True)), stream_on(Holding(b"abc", eof=False))
    for stream in (ended, cut):
        assert [stream.recv(2), stream.recv(2)] == [b"ab", b"c"]
    assert ended.recv(1) == b""
    with pytest.raises(ConnectionResetError):
        cut.recv(1)


def test_sending_to_who_takes_no_more_is_an_error_and_no_endless_loop() -> None:
    channel = Holding(b"", eof=True)
    stream = stream_on(channel)
    stream.sendall(memoryview(b"more than three"))
    channel.close()
    with pytest.raises(BrokenPipeError):
        stream.sendall(b"more")


def test_a_reader_made_of_the_stream_keeps_it_open() -> None:
    channel = Holding(b"line one\nrest", eof=True)
    stream = stream_on(channel)
    reader = stream.makefile("rb")
    stream.close()
    assert channel.closed == 0
    assert reader.readline() == b"line one\n"
    assert reader.read() == b"rest"
    reader.close()
    assert channel.closed == 1
    with pytest.raises(ValueError, match="only to read"):
        stream.makefile("wb")


def test_a_local_shutdown_is_no_cut() -> None:
    stream = stream_on(Holding(b"", eof=False))
    threading.Thread(target=stream.shutdown, args=(socket.SHUT_RDWR,)).run()
    assert stream.recv(1) == b""
