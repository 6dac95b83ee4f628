"""The programs that pools are compared with: where they are, and started for a while.

``script/bench`` unpacks those of Debian into ``benchmarks/.peers``, without installing them: two of
them can't be installed together, and all would start as daemons.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST = "127.0.0.1"
PEERS = Path(__file__).parent / ".peers"
PYTHON_PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin"
ECHO = Path(__file__).parent / "plain" / "echo" / "echo.py"
PYTHON = [os.path.realpath(sys.executable), "-I", "-S"]
"""The same interpreter for everybody, started in the fastest way that there is."""


def find(name: str) -> str | None:
    """Where a program is, if it is there."""
    places = [PEERS / "usr/sbin", PEERS / "usr/bin", PYTHON_PEERS]
    return shutil.which(name, path=os.pathsep.join([*map(str, places), os.environ["PATH"]]))


def free_port() -> int:
    """A port that nobody uses just now, below those for outgoing connections."""
    for port in range(19_000, 20_000):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SystemExit("no free port")


@contextmanager
def running(command: Sequence[object], port: int) -> Iterator[psutil.Process]:
    """A program that listens on the port, for the length of a ``with`` block, with its children."""
    process = psutil.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_answer(port)
        yield process
    finally:
        family = [process, *process.children(recursive=True)]
        for member in family:
            member.kill()
        process.wait()


def await_answer(port: int, seconds: float = 20) -> None:
    """Return when the echo on the port answers."""
    deadline = time.monotonic() + seconds
    while not answers(port):
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing answers on port {port}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether the echo on the port gives a line back now."""
    try:
        ask(port)
    except OSError:
        return False
    return True


def ask(port: int) -> None:
    """One connection: send a line, read it back, and wait for the end; raises OSError."""
    with socket.create_connection((HOST, port), timeout=10) as stream:
        stream.sendall(b"hello\n")
        received = b""
        while data := stream.recv(100):
            received += data
    if received != b"hello\n":
        raise ConnectionError("not what was sent")
