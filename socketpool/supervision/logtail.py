"""The end of a log, for people who want to know why something failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL_BYTES = 8192
LINE_CHARACTERS = 500


def last_lines(path: Path, count: int = 10) -> list[str]:
    """The last lines that hold anything, each cut to a length that can be shown."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip()[:LINE_CHARACTERS] for line in text.splitlines()]
    return [line for line in lines if line][-count:]
