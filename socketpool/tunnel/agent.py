"""A client of ssh-agent (draft-miller-ssh-agent): which keys it holds, and signatures by them."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, NamedTuple, Self

from socketpool.tunnel.sshdata import Reader, string

if TYPE_CHECKING:
    from pathlib import Path

LIST, LISTED, SIGN, SIGNED = 11, 12, 13, 14
FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
MAX_BYTES = 1 << 20
LIST_SECONDS = 10.0
SIGN_SECONDS = 120.0
"""The user may have to confirm it, or to touch a token."""


class HeldKey(NamedTuple):
    """A key, or certificate, of the agent."""

    blob: bytes
    comment: str


class Agent:
    """A connection to an agent."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when none answers there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(LIST_SECONDS)
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def held(self) -> list[HeldKey]:
        """What it holds; nothing while it is locked.  Raises OSError or ValueError."""
        kind, reader = self._ask(bytes([LIST]))
        if kind != LISTED:
            return []
        return [HeldKey(reader.string(), reader.text()) for _ in range(reader.uint32())]

    def sign(self, blob: bytes, data: bytes, algorithm: str) -> bytes | None:
        """The signature by a key, as SSH sends it; None when the agent won't sign."""
        self._socket.settimeout(SIGN_SECONDS)
        flags = FLAGS.get(algorithm, 0).to_bytes(4, "big")
        with contextlib.suppress(OSError, ValueError):
            kind, reader = self._ask(bytes([SIGN]) + string(blob) + string(data) + flags)
            return reader.string() if kind == SIGNED else None
        return None

    def _ask(self, request: bytes) -> tuple[int, Reader]:
        self._socket.sendall(string(request))
        size = int.from_bytes(self._exactly(4), "big")
        if not 0 < size <= MAX_BYTES:
            raise ValueError("an answer of the agent that is too long")
        answer = Reader(self._exactly(size))
        return answer.byte(), answer

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError("the agent closed the connection")
            data += more
        return data
