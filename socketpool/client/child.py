"""A program that runs in the foreground on our behalf, as if the user had started it himself.

It shares our terminal and process group, so what is typed at the terminal reaches it without us;
what other processes send to us is passed on.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STOP_SECONDS = 10.0
"""Time from the signal that ends the program until it is killed, in seconds."""

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ASK_TO_END = (signal.SIGTERM, signal.SIGHUP)
_IGNORED_ON_PURPOSE = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""By nohup, and by shells for what runs in the background: it means the program as well."""

_BY_KERNEL = 0x80  # si_code of a signal that the terminal sent to the whole process group
_INTERVAL_SECONDS = 0.25


def run_child(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    keep_running: Callable[[], bool] = lambda: True,
    stop_seconds: float = STOP_SECONDS,
) -> int:
    """Run the program to its end; returns its exit code as a shell tells it (128+n for signals).

    SIGTERM and SIGHUP are passed on, and the program is killed when it has not ended
    ``stop_seconds`` later; SIGINT is passed on too, but what it means is up to the program.  It is
    told to end in the same way when ``keep_running`` says no.  Raises OSError when it can't be
    started.

    The program has the default disposition of every signal, but for what nohup or a shell had us
    ignore, and none is blocked.

    Those signals stay blocked in this thread afterwards: whatever is left to be done then must not
    be interrupted by an impatient second one.
    """
    heard = {n for n in _PASSED_ON if signal.getsignal(n) != signal.SIG_IGN}  # nohup
    signal.pthread_sigmask(signal.SIG_BLOCK, heard | {signal.SIGCHLD})
    meant = {n for n in _IGNORED_ON_PURPOSE if signal.getsignal(n) == signal.SIG_IGN}
    defaults = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} - meant
    pid = os.posix_spawnp(argv[0], list(argv), environment, setsigmask=(), setsigdef=defaults)
    deadline = float("inf")
    while True:
        info = signal.sigtimedwait(heard | {signal.SIGCHLD}, _INTERVAL_SECONDS)
        if info is not None and info.si_signo in heard:
            if info.si_code != _BY_KERNEL:
                _send(pid, info.si_signo)
            if info.si_signo in _ASK_TO_END:
                deadline = min(deadline, time.monotonic() + stop_seconds)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return exit_code(status)
        if deadline == float("inf") and not keep_running():
            _send(pid, signal.SIGTERM)
            deadline = time.monotonic() + stop_seconds
        if time.monotonic() > deadline:
            _send(pid, signal.SIGKILL)


def exit_code(status: int) -> int:
    """The exit code for a wait status, as shells show it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # it has become another user's: set-user-id
        os.kill(pid, number)
