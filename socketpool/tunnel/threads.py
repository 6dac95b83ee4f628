"""Threads that leave signals to the main one, which may be waiting for them."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def without_signals() -> Iterator[None]:
    """Threads that are started meanwhile get no signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread that doesn't keep the process alive."""
    thread = threading.Thread(target=target, args=arguments, daemon=True, name=name)
    with without_signals():
        thread.start()
    return thread
