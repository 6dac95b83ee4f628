"""Streams through a real sshd: they behave as sockets do, and a cut is never a clean end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from socketpool.errors import SocketpoolError
from socketpool.tunnel.failures import ForwardProhibited, TargetRefused
from tests.support.sshd import CIPHERS
from tests.support.tunnels import (
    HOST,
    answer_at_the_end,
    digest_of,
    echo,
    send_noise,
    serving,
    take_all,
    tunnel_through,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.tunnel.reconnect import Tunnel
    from tests.support.sshd import Sshd, SshdMaker

SIZE = 64 << 20


@pytest.fixture
def tunnel(any_server: Sshd) -> Iterator[Tunnel]:
    with tunnel_through(any_server) as made:
        yield made


def test_a_large_file_arrives_whole_both_ways(tunnel: Tunnel) -> None:
    data = os.urandom(1 << 20)
    with serving(answer_at_the_end) as port, tunnel.dial(HOST, port) as stream:
        for _ in range(SIZE >> 20):
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        assert take_all(stream).decode() == hashlib.sha256(data * (SIZE >> 20)).hexdigest()
    send, digest = send_noise(SIZE)
    with serving(send) as port, tunnel.dial(HOST, port) as stream:
        assert digest_of(stream) == digest


def test_answers_come_while_the_host_has_nothing_else_to_say(tunnel: Tunnel) -> None:
    answers: list[bytes] = []

    def converse() -> None:
        for _ in range(20):
            stream.sendall(b"ping")
            answers.append(stream.recv(4))

    with serving(echo) as port, tunnel.dial(HOST, port) as stream:
        thread = threading.Thread(target=converse)
        thread.start()
        thread.join(20)
        assert answers == [b"ping"] * 20


def test_what_follows_the_end_of_our_side_still_arrives(tunnel: Tunnel) -> None:
    with serving(answer_at_the_end) as port, tunnel.dial(HOST, port) as stream:
        stream.sendall(b"question")
        stream.shutdown(socket.SHUT_WR)
        assert take_all(stream).decode() == hashlib.sha256(b"question").hexdigest()


def test_single_bytes_arrive_in_order(tunnel: Tunnel) -> None:
    sent = os.urandom(2000)
    with serving(echo) as port, tunnel.dial(HOST, port) as stream:
        got = bytearray()
        for number in range(len(sent)):
            stream.sendall(sent[number : number + 1])
            if number % 3 == 0:
                got += stream.recv(1)
        while len(got) < len(sent):
            got += stream.recv(1)
    assert bytes(got) == sent


def test_a_hundred_streams_at_once_keep_their_bytes_apart(tunnel: Tunnel) -> None:
    together = threading.Barrier(100)

    def converse(number: int) -> bool:
        sent = bytes([number]) * 50_000 + os.urandom(10_000)
        with tunnel.dial(HOST, port) as stream:
            together.wait(60)
            sender = threading.Thread(target=stream.sendall, args=(sent,))
            sender.start()
            got = b""
            while len(got) < len(sent):
                got += stream.recv(1 << 16)
            sender.join()
        return got == sent

    with serving(echo) as port, ThreadPoolExecutor(100) as workers:
        assert all(workers.map(converse, range(100)))


def test_what_has_long_waited_can_be_read_in_small_pieces(tunnel: Tunnel) -> None:
    size = 8 << 20
    send, digest = send_noise(size)
    made = hashlib.sha256()
    with serving(send) as port, tunnel.dial(HOST, port) as stream:
        eventually(lambda: len(stream._channel.in_buffer) == size, "all of it waits")
        while data := stream.recv(512):
            made.update(data)
    assert made.hexdigest() == digest


def test_a_cut_is_an_error_for_who_reads_and_who_writes(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    with tunnel_through(server) as tunnel, serving(echo) as port:
        reader, writer = tunnel.dial(HOST, port), tunnel.dial(HOST, port)
        reader.sendall(b"some")
        assert reader.recv(100) == b"some"
        server.cut()
        with pytest.raises(ConnectionResetError):
            reader.recv(100)

        def write_on() -> None:
            for _ in range(1000):
                writer.sendall(b"x" * 100_000)

        with pytest.raises(OSError, match=r".+"):
            write_on()


def test_what_came_before_a_cut_can_still_be_read(new_sshd: SshdMaker) -> None:
    server = new_sshd.start()
    with tunnel_through(server) as tunnel, serving(echo) as port:
        stream = tunnel.dial(HOST, port)
        stream.sendall(b"some")
        eventually(stream._channel.recv_ready, "the echo")
        server.cut()
        eventually(lambda: stream._channel.closed, "the cut")
        assert stream.recv(100) == b"some"
        with pytest.raises(ConnectionResetError):
            stream.recv(100)


def test_shutting_a_stream_down_wakes_who_reads_it(tunnel: Tunnel) -> None:
    with serving(echo) as port, tunnel.dial(HOST, port) as stream:
        timer = threading.Timer(0.2, stream.shutdown, (socket.SHUT_RDWR,))
        timer.start()
        assert stream.recv(1) == b""
        timer.join()


def test_a_silent_peer_is_not_waited_for_longer_than_allowed(tunnel: Tunnel) -> None:
    with serving(echo) as port, tunnel.dial(HOST, port) as stream:
        stream.settimeout(0.1)
        with pytest.raises(TimeoutError):
            stream.recv(1)


def test_a_port_where_nothing_listens_is_said_to_be_so(tunnel: Tunnel) -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TargetRefused, match=f"nothing listens there at {HOST} port {port}"):
        tunnel.dial(HOST, port)


def test_refusals_at_once_are_each_told_their_own_reason(new_sshd: SshdMaker) -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    server = new_sshd.start("there", f"PermitOpen {HOST}:{port}")

    def reason(tunnel: Tunnel, number: int) -> type[Exception]:
        try:
            tunnel.dial(HOST, port if number % 2 else port + 1)
        except (TargetRefused, ForwardProhibited) as error:
            return type(error)
        raise AssertionError("was opened")

    with tunnel_through(server) as tunnel, ThreadPoolExecutor(16) as workers:
        found = list(workers.map(partial(reason, tunnel), range(64)))
    assert found == [ForwardProhibited, TargetRefused] * 32


def test_a_target_that_hangs_or_refuses_holds_nobody_else_up(new_sshd: SshdMaker) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        for _ in range(2):  # from then on the kernel drops who wants to connect
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        with socket.create_server((HOST, 0)) as closed:
            refusing = closed.getsockname()[1]
        tunnel = stack.enter_context(tunnel_through(new_sshd.start()))
        echoing = stack.enter_context(serving(echo))
        hanging = threading.Thread(
            target=suppressed(tunnel.dial), args=(HOST, full.getsockname()[1])
        )
        hanging.start()
        eventually(lambda: tunnel.link().transport._openings, "the opening")
        done = []

        def others() -> None:
            for _ in range(5):
                with pytest.raises(TargetRefused):
                    tunnel.dial(HOST, refusing)
                with tunnel.dial(HOST, echoing) as stream:
                    stream.sendall(b"ping")
                    done.append(stream.recv(4))

        busy = [threading.Thread(target=others) for _ in range(3)]
        for thread in busy:
            thread.start()
        for thread in busy:
            thread.join(15)
        assert hanging.is_alive()
        assert done == [b"ping"] * 15
    hanging.join()


def suppressed(action: Callable[..., object]) -> Callable[..., None]:
    def run(*arguments: object) -> None:
        with contextlib.suppress(SocketpoolError):
            action(*arguments)

    return run


@pytest.mark.parametrize("family", CIPHERS)
def test_new_keys_are_agreed_on_under_load(new_sshd: SshdMaker, family: str) -> None:
    """sshd asks for them after each megabyte, while streams come and go."""
    server = new_sshd.start_family(family, "RekeyLimit 1M")
    send, digest = send_noise(16 << 20)
    stop = threading.Event()
    opened: list[int] = []

    def come_and_go() -> None:
        while not stop.is_set():
            with tunnel.dial(HOST, echoing) as stream:
                stream.sendall(b"ping")
                assert stream.recv(4) == b"ping"
            opened.append(1)

    with tunnel_through(server) as tunnel, serving(send) as sending, serving(echo) as echoing:
        visitors = [threading.Thread(target=come_and_go) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        with tunnel.dial(HOST, sending) as stream:
            assert digest_of(stream) == digest
        stop.set()
        for visitor in visitors:
            visitor.join(60)
        assert not any(visitor.is_alive() for visitor in visitors)
        tunnel.dial(HOST, echoing).close()  # still the same connection
    assert len(opened) > 4
    assert server.log.count("Accepted publickey") == 1
