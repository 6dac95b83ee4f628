"""What instances tell the pool server: that they are ready, and that they still work.

A datagram ``READY=1`` to the socket that ``NOTIFY_SOCKET`` names (sd_notify(3)); the kernel adds
who sent it, so that nobody can speak for another.  Instances of the SDK are asked on a socket of
their own from time to time whether they still work, and answer ``WATCHDOG=1`` (the keep-alive of
sd_notify) from their main loop: a connection that is accepted says nothing of that, since the
kernel accepts for a process that hangs.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRONMENT = "NOTIFY_SOCKET"
READY = b"READY=1"
ALIVE = b"WATCHDOG=1"

_CREDENTIALS = struct.Struct("3i")
_MESSAGE_BYTES = 4096


class Message(NamedTuple):
    """Who said something, as the kernel named the process, and what: READY or ALIVE."""

    pid: int
    text: bytes


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

    def receive(self) -> Iterator[Message]:
        """What was said since the last look."""
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            lines = data.split(b"\n")
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = _CREDENTIALS.unpack(content[: _CREDENTIALS.size])[0]
                    yield from (Message(pid, text) for text in (READY, ALIVE) if text in lines)

    def ask(self, path: Path) -> None:
        """Ask the instance whose `AliveSocket` is at ``path``; its answer comes by `receive`.

        Raises OSError when nobody is there or too many questions wait there already.
        """
        self._socket.sendto(b"ALIVE?", str(path))

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


def say_ready() -> None:
    """Tell whoever started this process that it is ready, once; what it starts can't."""
    path = os.environ.pop(ENVIRONMENT, "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            sender.send(READY)


class AliveSocket:
    """An instance's end: answers whoever asks whether its main loop still turns."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        # Through its folder's descriptor: the path itself may be longer than a socket's can be.
        folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
        try:
            self._socket.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self._socket.fileno()

    def answer(self) -> None:
        """Answer one question; who doesn't listen for it, or too slowly, asks again."""
        with suppress(OSError):
            _, asker = self._socket.recvfrom(_MESSAGE_BYTES)
            if asker:
                self._socket.sendto(ALIVE, asker)

    def close(self) -> None:
        """Answer nothing more."""
        self._socket.close()
