"""Listeners whose connections go through a tunnel, as any program meets them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from socketpool.errors import ConfigError
from socketpool.system.sockets import listen_on
from socketpool.tunnel.forward import BACKLOG, Forwarder, to_port
from socketpool.tunnel.loopback import listen_for
from tests.support.tunnels import (
    HOST,
    answer_at_the_end,
    descriptors,
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

    Forward = Callable[[Tunnel, int], int]


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    from tests.support.sshd import SshdMaker

    with SshdMaker() as maker:
        yield maker.start()


@pytest.fixture
def forward() -> Iterator[Forward]:
    """Makes forwarders to a port behind a tunnel; gives the port to connect to."""
    forwarders: list[Forwarder] = []

    def make(tunnel: Tunnel, port: int) -> int:
        listener = listen_on(HOST, 0, BACKLOG)
        entrance = int(listener.getsockname()[1])
        forwarders.append(Forwarder(listener, to_port(tunnel.dial, HOST, port), notes.append))
        return entrance

    notes: list[str] = []
    yield make
    for forwarder in forwarders:
        forwarder.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=60)


def test_a_large_file_arrives_whole_both_ways(any_server: Sshd, forward: Forward) -> None:
    size = 48 << 20
    send, digest = send_noise(size)
    block = os.urandom(1 << 20)
    with tunnel_through(any_server) as tunnel:
        with serving(send) as port, connect(forward(tunnel, port)) as near:
            assert digest_of(near) == digest
        with serving(answer_at_the_end) as port, connect(forward(tunnel, port)) as near:
            for _ in range(size >> 20):
                near.sendall(block)
            near.shutdown(socket.SHUT_WR)
            assert take_all(near).decode() == hashlib.sha256(block * (size >> 20)).hexdigest()


def test_each_side_may_end_first(any_server: Sshd, forward: Forward) -> None:
    def speak_first(connection: socket.socket) -> None:
        connection.sendall(b"done")
        connection.shutdown(socket.SHUT_WR)
        heard.append(take_all(connection))

    heard: list[bytes] = []
    with tunnel_through(any_server) as tunnel, serving(speak_first) as port:
        with connect(forward(tunnel, port)) as near:
            assert take_all(near) == b"done"
            near.sendall(b"and what we say afterwards")
        eventually(lambda: heard == [b"and what we say afterwards"], "the rest")


def test_a_cut_resets_the_program_here_whatever_it_does(
    new_sshd: SshdMaker, forward: Forward
) -> None:
    server = new_sshd.start()
    with tunnel_through(server) as tunnel, serving(echo) as port:
        entrance = forward(tunnel, port)
        with connect(entrance) as reading, connect(entrance) as writing:
            for near in (reading, writing):
                near.sendall(b"ping")
                assert near.recv(4) == b"ping"
            server.cut()
            with pytest.raises(ConnectionResetError):
                reading.recv(1)

            def write_on() -> None:
                for _ in range(10_000):
                    writing.sendall(b"x" * 10_000)

            with pytest.raises(ConnectionError):
                write_on()


def test_a_cut_in_the_middle_of_a_download_is_no_end_of_file(
    new_sshd: SshdMaker, forward: Forward
) -> None:
    server = new_sshd.start()
    send, _ = send_noise(256 << 20)
    with (
        tunnel_through(server) as tunnel,
        serving(send) as port,
        connect(forward(tunnel, port)) as near,
    ):
        assert near.recv(1 << 16)
        server.cut()
        with pytest.raises(ConnectionResetError):
            take_all(near)


def test_a_port_where_nothing_listens_resets_the_program(server: Sshd, forward: Forward) -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    with (
        tunnel_through(server) as tunnel,
        connect(forward(tunnel, port)) as near,
        pytest.raises(ConnectionResetError),
    ):
        near.recv(1)


def test_who_leaves_in_the_middle_is_seen_to_leave(server: Sshd, forward: Forward) -> None:
    def listen(connection: socket.socket) -> None:
        heard.append(len(take_all(connection)))

    heard: list[int] = []
    with tunnel_through(server) as tunnel, serving(listen) as port:
        near = connect(forward(tunnel, port))
        near.sendall(b"x" * 100)
        near.close()
        eventually(lambda: heard == [100], "its end over there")


def test_two_hundred_programs_at_once_wait_for_a_host_that_restarts(
    new_sshd: SshdMaker, forward: Forward
) -> None:
    """More than the usual backlog of 128, all of them while there is no connection."""
    server = new_sshd.start()
    together = threading.Barrier(200, lambda: threading.Timer(1, server.start).start())

    def converse(number: int) -> bool:
        with connect(entrance) as near:
            together.wait(60)
            near.sendall(b"%4d" % number)
            return near.recv(4) == b"%4d" % number

    with tunnel_through(server) as tunnel, serving(echo) as port:
        entrance = forward(tunnel, port)
        server.kill()
        eventually(lambda: tunnel.state == "reconnecting", "the loss")
        with ThreadPoolExecutor(200) as workers:
            assert all(workers.map(converse, range(200)))


def test_a_thousand_connections_leave_no_thread_and_no_descriptor(
    server: Sshd, forward: Forward
) -> None:
    def converse(number: int) -> bool:
        with connect(entrance) as near:
            near.sendall(b"%4d" % number)
            return near.recv(4) == b"%4d" % number

    with tunnel_through(server) as tunnel, serving(echo) as port:
        entrance = forward(tunnel, port)
        assert converse(0)
        eventually(lambda: not busy(), "the first one's end")
        threads, files = threading.active_count(), descriptors()
        with ThreadPoolExecutor(8) as workers:
            assert all(workers.map(converse, range(1000)))
        eventually(lambda: threading.active_count() <= threads, f"{threads} threads again")
        eventually(lambda: descriptors() <= files, f"{files} descriptors again")
        (session,) = [p for p in server.sessions() if not p.children()]
        eventually(lambda: session.num_fds() < 60, "no channel left at the host")


def busy() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in {"forward", "relay-up"}]


def test_a_host_s_address_is_always_the_same_and_another_host_s_another() -> None:
    with contextlib.ExitStack() as stack:
        first, listeners = listen_for("root@one", [0, 0])
        for listener in listeners:
            stack.enter_context(listener)
        port = listeners[0].getsockname()[1]
        second, (other,) = listen_for("root@two", [port])
        stack.enter_context(other)
        assert first.startswith("127.")
        assert first != second
        again, (third,) = listen_for("root@one", [port])
        stack.enter_context(third)
        assert again not in {first, second}  # its own is taken, by the first
    address, (listener,) = listen_for("root@one", [port])
    listener.close()
    assert address == first


def test_a_port_that_is_taken_everywhere_is_said_to_be() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        pytest.raises(ConfigError, match="is taken on the loopback addresses"),
    ):
        listen_for("root@one", [everywhere.getsockname()[1]])


def test_programs_on_other_machines_can_t_connect() -> None:
    address, (listener,) = listen_for("root@one", [0])
    with listener:
        assert listener.getsockname()[0] == address
        assert address.split(".")[0] == "127"
