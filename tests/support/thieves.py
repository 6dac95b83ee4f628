"""A local user who listens where a pool should, and keeps what is sent there."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "nobody"
"""An account that every system has, and that is not ours."""

LISTENS = r"""
import os, pwd, socket, sys
port, does, account = int(sys.argv[1]), sys.argv[2], pwd.getpwnam(sys.argv[3])
os.setgroups([]), os.setgid(account.pw_gid), os.setuid(account.pw_uid)
listener = socket.create_server(("127.0.0.1", port))
print(listener.getsockname()[1], flush=True)
while does != "waits":
    connection, _ = listener.accept()
    if does == "leaves":
        listener.close()
    while data := connection.recv(65536):
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
        if does == "answers" and data.endswith(b"\r\n\r\n"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
    connection.close()
    if does == "leaves":
        break
sys.stdin.read()
"""


@dataclass
class Thief:
    """``port`` is where it listens; ``loot`` what it was sent so far."""

    port: int
    _kept: Path

    @property
    def loot(self) -> bytes:
        return self._kept.read_bytes()


@contextmanager
def thief(folder: Path, port: int = 0, *, does: str = "accepts") -> Iterator[Thief]:
    """Another account's listener on a port of 127.0.0.1, for the length of a ``with`` block.

    It ``accepts``, ``answers`` each request of HTTP, ``waits`` and never accepts, or accepts one
    connection and ``leaves`` the port to others.
    """
    kept = folder / "loot"
    with (
        kept.open("wb") as loot,
        subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", LISTENS),
                *(str(port), does, NAME),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=loot,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            told = process.stdout.readline()
            assert told, kept.read_bytes()
            yield Thief(int(told), kept)
        finally:
            process.kill()


def await_loot(found: Thief) -> bytes:
    """What the thief was sent, once there is anything."""
    return eventually(lambda: found.loot, "something to be sent")
