"""A loopback address for each remote host, so that the same ports of two hosts never collide.

All of 127.0.0.0/8 leads to this machine (Linux).  A host always gets the same address, made of its
name; when another program has one of its ports there, the next in its sequence.
"""

from __future__ import annotations

import errno
import hashlib
from itertools import islice
from typing import TYPE_CHECKING

from socketpool.errors import ConfigError
from socketpool.system.sockets import listen_on
from socketpool.tunnel.forward import BACKLOG

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

TRIES = 16


def addresses(host: str) -> Iterator[str]:
    """The addresses of a host in order, without end; none is of 127.0.0.0/10, which others use."""
    number = 0
    while True:
        first, second, third = hashlib.sha256(f"{host}/{number}".encode()).digest()[:3]
        yield f"127.{64 + first % 191}.{second}.{1 + third % 254}"
        number += 1


def listen_for(host: str, ports: Sequence[int]) -> tuple[str, list[socket.socket]]:
    """Listen on all the ports at an address of the host; raises ConfigError."""
    for address in islice(addresses(host), TRIES):
        listeners: list[socket.socket] = []
        port = 0
        try:
            for port in ports:
                listeners.append(listen_on(address, port, BACKLOG))
            return address, listeners
        except OSError as error:
            for listener in listeners:
                listener.close()
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"can't listen at {address} port {port}: {error.strerror}",
                    hint="ports below 1024 need privileges; only Linux has all of 127.0.0.0/8",
                ) from None
    raise ConfigError(
        f"port {port} is taken on the loopback addresses of this machine",
        hint="something listens on it at every address (0.0.0.0); stop that, or use --socks",
    )


def listen_at(address: str, ports: Sequence[int]) -> list[socket.socket]:
    """Listen on all the ports at one address; raises ConfigError."""
    listeners: list[socket.socket] = []
    for port in ports:
        try:
            listeners.append(listen_on(address, port, BACKLOG))
        except (OSError, OverflowError) as error:
            for listener in listeners:
                listener.close()
            reason = error.strerror if isinstance(error, OSError) else "there is no such port"
            raise ConfigError(
                f"can't listen at {address} port {port}: {reason}",
                hint="name another port: --listen ADDR:PORT",
            ) from None
    return listeners
