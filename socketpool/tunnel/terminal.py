"""Lending the terminal to a program that may have to ask there, such as a ProxyCommand."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TERMINAL = "/dev/tty"


def lend_terminal(group: int) -> Callable[[], None]:
    """Make a process group the one that may read from the terminal; gives how to take it back.

    Nothing happens where there is no terminal, or where it isn't ours to lend.
    """
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return lambda: None
    ours = os.getpgrp()
    try:
        lent = os.tcgetpgrp(terminal) == ours
        if lent:
            _set_foreground(terminal, group)
            os.killpg(group, signal.SIGCONT)  # it may have been stopped for reading too early
    except OSError:
        lent = False
    if not lent:
        os.close(terminal)
        return lambda: None

    def take_back() -> None:
        with suppress(OSError):
            _set_foreground(terminal, ours)
        os.close(terminal)

    return take_back


def _set_foreground(terminal: int, group: int) -> None:
    # In the background we would be stopped for this.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(terminal, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
