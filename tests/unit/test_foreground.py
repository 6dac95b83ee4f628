"""Signals to commands that serve in the foreground."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

WAITS = """
import os, signal, sys, threading, time
from socketpool.cli.foreground import ReloadRequested, StopRequested, Stopper

def kill_from_a_thread():
    # The kernel gives it to this thread, and the one that waits sleeps on.
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), getattr(signal, sys.argv[1]))
    time.sleep(30)

stopper = Stopper(reloads=True)
stopper.listen()
threading.Thread(target=kill_from_a_thread, daemon=True).start()
nothing, _ = os.pipe()
try:
    stopper.wait(nothing)
except (StopRequested, ReloadRequested) as asked:
    print(type(asked).__name__)
"""


@pytest.mark.parametrize(
    ("number", "asked"),
    [("SIGINT", "StopRequested"), ("SIGTERM", "StopRequested"), ("SIGHUP", "ReloadRequested")],
)
def test_a_signal_that_another_thread_gets_wakes_who_waits(number: str, asked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITS, number],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        start_new_session=True,  # no terminal, so that SIGHUP is no end of one
    )
    assert done.stdout == f"{asked}\n"


def test_a_descriptor_that_can_be_read_ends_the_wait() -> None:
    code = WAITS.replace("nothing, _ = os.pipe()", "nothing, w = os.pipe(); os.write(w, b'!')")
    done = subprocess.run(
        [sys.executable, "-c", code + "else: print('ready')", "SIGINT"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "ready\n"


def test_nohup_is_respected() -> None:
    """What is ignored from the start stays so; the next signal is heard all the same."""
    first = "os.kill(os.getpid(), signal.SIGHUP)"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = subprocess.run(
            [sys.executable, "-c", WAITS.replace("    time.sleep(0.2)", f"    {first}"), "SIGTERM"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done.stdout == "StopRequested\n"
