"""The end of a log, for people who want to know why something failed."""

from __future__ import annotations

import os
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL_BYTES = 8192
LINE_CHARACTERS = 500

END_SECONDS = 1.0
"""How long the last words of a program that has ended may be on their way."""


def last_lines(path: Path, count: int = 10) -> list[str]:
    """The last lines that hold anything, each cut to a length that can be shown."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
    except OSError:
        return []
    return _lines(tail, count)


class PipeTail:
    """The end of what a program prints into a pipe.

    It is read as it comes, and kept in memory: whatever becomes of the disk, the program can print.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._tail = b""
        self._thread = threading.Thread(target=self._read, daemon=True, name="pipe-tail")
        self._thread.start()

    def last_lines(self, count: int = 10) -> list[str]:
        """As `last_lines` of a file; all that was printed, when the program has ended."""
        self._thread.join(END_SECONDS)
        return _lines(self._tail, count)

    def _read(self) -> None:
        with self._pipe:
            while block := os.read(self._pipe.fileno(), TAIL_BYTES):
                self._tail = (self._tail + block)[-TAIL_BYTES:]


def _lines(tail: bytes, count: int) -> list[str]:
    text = tail.decode("utf-8", "replace")
    lines = [line.rstrip()[:LINE_CHARACTERS] for line in text.splitlines()]
    return [line for line in lines if line][-count:]
