"""READY messages: how a service says itself that it is ready, as systemd's services do.

A datagram ``READY=1`` to the socket that ``NOTIFY_SOCKET`` names (sd_notify(3)); the kernel adds
who sent it, so that nobody can speak for another.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRONMENT = "NOTIFY_SOCKET"

_CREDENTIALS = struct.Struct("3i")
_MESSAGE_BYTES = 4096


class ReadyMessages:
    """The receiving end; made by the pool server, and new after its restart."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))

    def fileno(self) -> int:
        """For the event loop: readable when somebody has said something."""
        return self._socket.fileno()

    def receive(self) -> Iterator[int]:
        """The processes that have said READY=1 since the last look."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            for level, kind, content in ancillary:
                is_sender = (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
                if is_sender and b"READY=1" in data.split(b"\n"):
                    yield _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


def say_ready() -> None:
    """Tell whoever started this process that it is ready, once; what it starts can't."""
    path = os.environ.pop(ENVIRONMENT, "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            sender.send(b"READY=1")
