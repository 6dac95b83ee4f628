"""Dispositions of signals, as programs that this process starts inherit them."""

from __future__ import annotations

import signal

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def catch_what_python_ignores() -> None:
    """Handle the signals that Python ignores, without effect, for all that this process starts.

    A call that fails with EPIPE or EFBIG still raises OSError here; but a handler, unlike an
    ignored signal, isn't inherited by programs, however they are started.
    """
    for number in IGNORED_BY_PYTHON:
        if signal.getsignal(number) in (signal.SIG_IGN, signal.SIG_DFL):
            signal.signal(number, _do_nothing)


def _do_nothing(*_: object) -> None:
    """Handle a signal."""
