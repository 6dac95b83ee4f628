"""With which signals ignored or blocked, and which descriptors open, a program was started."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITE_REPORT = (
    'exec >"$1.new"; grep -E "^Sig(Blk|Ign)" /proc/self/status; ls /proc/$$/fd; echo end; '
    'mv "$1.new" "$1"'
)
"""A script for `sh -c`; its first argument is where the report goes."""

OF_THE_C_LIBRARY = 1 << 31 | 1 << 32
"""Signals 32 and 33, which no program can do anything about."""


def reporter(target: Path | str) -> list[str]:
    """A program that writes its report; Python would ignore signals of its own accord."""
    return ["sh", "-c", WRITE_REPORT, "sh", str(target)]


def read_report(target: Path) -> dict[str, Any]:
    """What a `reporter` found, once it has."""
    eventually(target.exists, f"the report {target.name}")
    blocked, ignored, *descriptors, _ = target.read_text().splitlines()
    return {
        "blocked": _signals(blocked),
        "ignored": _signals(ignored),
        "descriptors": [int(number) for number in descriptors],
    }


FRESH = {"blocked": set(), "ignored": set(), "descriptors": [0, 1, 2]}
"""The report of a program that was started as one expects it."""


def signals_of(pid: int) -> dict[str, set[int]]:
    """The signals that a process blocks and ignores now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    names = {"SigBlk": "blocked", "SigIgn": "ignored"}
    return {names[line[:6]]: _signals(line) for line in lines if line[:6] in names}


def _signals(line: str) -> set[int]:
    bits = int(line.partition(":")[2], 16) & ~OF_THE_C_LIBRARY
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


@contextlib.contextmanager
def odd_signals() -> Iterator[None]:
    """What is started in this ``with`` block inherits an ignored signal and a blocked one."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, before)
