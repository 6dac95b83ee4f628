"""Tunnels for tests, and servers to reach through them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from socketpool.config.destination import Destination
from socketpool.tunnel.ssh import open_tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.client.dial import Connection
    from socketpool.tunnel.reconnect import Tunnel
    from socketpool.tunnel.states import TunnelState
    from tests.support.sshd import Sshd

HOST = "127.0.0.1"


@dataclass
class Told:
    """What the user was told."""

    notes: list[str] = field(default_factory=list)
    changes: list[tuple[TunnelState, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def tunnel_through(
    server: Sshd,
    *,
    accept_new: bool = False,
    passphrase: str | None = None,
    told: Told | None = None,
) -> Iterator[Tunnel]:
    """A tunnel through an sshd, as its client's ssh_config says."""
    told = told or Told()

    def ask(prompt: str, *, echo: bool = False) -> str | None:
        told.asked.append(prompt)
        return passphrase

    tunnel = open_tunnel(
        Destination.parse(server.alias),
        config=server.client_config,
        accept_new=accept_new,
        ask=ask,
        note=told.notes.append,
        on_change=lambda state, why: told.changes.append((state, why)),
    )
    with contextlib.closing(tunnel):
        yield tunnel


@contextlib.contextmanager
def serving(handle: Callable[[socket.socket], None], backlog: int = 256) -> Iterator[int]:
    """A server that handles each connection in a thread; gives its port."""
    listener = socket.create_server((HOST, 0), backlog=backlog)

    def carry(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def echo(connection: socket.socket) -> None:
    """Say everything again, as it comes."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def answer_at_the_end(connection: socket.socket) -> None:
    """Take everything up to the end, and only then send its digest."""
    digest = hashlib.sha256()
    while data := connection.recv(1 << 20):
        digest.update(data)
    connection.sendall(digest.hexdigest().encode())


def send_noise(size: int) -> tuple[Callable[[socket.socket], None], str]:
    """A handler that sends so many bytes, and their digest."""
    block = os.urandom(1 << 20)
    digest = hashlib.sha256(block * (size >> 20)).hexdigest()

    def send(connection: socket.socket) -> None:
        for _ in range(size >> 20):
            connection.sendall(block)

    return send, digest


def take_all(stream: Connection | socket.socket) -> bytes:
    """Everything up to the end."""
    pieces = []
    while data := stream.recv(1 << 20):
        pieces.append(data)
    return b"".join(pieces)


def digest_of(stream: Connection | socket.socket) -> str:
    """The digest of everything up to the end."""
    digest = hashlib.sha256()
    while data := stream.recv(1 << 20):
        digest.update(data)
    return digest.hexdigest()


def descriptors() -> int:
    """How many files this process has open."""
    return psutil.Process().num_fds()
