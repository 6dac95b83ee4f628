"""Listening sockets, for everything of ours that has one."""

from __future__ import annotations

import socket


def open_socket(host: str) -> socket.socket:
    """A TCP socket of the family of a numeric address."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def listen_on(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket on a numeric address; raises OSError, and then none is left open."""
    listener = open_socket(host)
    try:
        # A port whose last connections are still winding down is free all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
