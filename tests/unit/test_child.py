"""A program that runs in the foreground on our behalf."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from socketpool.client.child import exit_code
from tests.support.startstate import odd_signals, read_report, reporter
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = """
import os, signal, sys
from socketpool.client.child import run_child
flag = sys.argv[1]
program = sys.argv[2:]
sys.exit(
    run_child(program, os.environ, keep_running=lambda: not os.path.exists(flag), stop_seconds=0.5)
)
"""

COUNTS_INTERRUPTS = """
import os, signal, sys
def count(*_):
    os.write(1, b"interrupted\\n")  # print can't be interrupted by itself
signal.signal(signal.SIGINT, count)
os.write(1, b"ready\\n")
sys.stdin.readline()
"""

IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


class Running:
    """`run_child` in a process of its own."""

    def __init__(self, flag: Path, *argv: str, **options: Any) -> None:
        self.flag = flag
        self.process = subprocess.Popen(
            [sys.executable, "-c", OURS, flag, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline()
        return line.strip()

    def child(self) -> psutil.Process:
        return eventually(psutil.Process(self.process.pid).children, "the program")[0]

    def code(self) -> int:
        with self.process:
            return self.process.wait(30)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    return tmp_path / "end"


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_exit_code_is_the_programs(flag: Path) -> None:
    assert Running(flag, *python("raise SystemExit(41)")).code() == 41


def test_a_program_that_was_killed_is_told_as_shells_do(flag: Path) -> None:
    running = Running(flag, "sleep", "600")
    running.child().kill()
    assert running.code() == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_passed_on(flag: Path, number: signal.Signals) -> None:
    running = Running(flag, "sleep", "600")
    running.child()
    running.process.send_signal(number)
    assert running.code() == 128 + number


def test_a_program_that_ignores_the_request_to_end_is_killed(flag: Path) -> None:
    running = Running(flag, *python(IGNORES))
    assert running.line() == "ready"
    running.process.terminate()
    assert running.code() == 128 + signal.SIGKILL


def test_what_an_interrupt_means_is_up_to_the_program(flag: Path) -> None:
    running = Running(flag, *python(COUNTS_INTERRUPTS))
    assert running.line() == "ready"
    for _ in range(2):
        running.process.send_signal(signal.SIGINT)
        assert running.line() == "interrupted"
    running.process.communicate("\n", timeout=30)
    assert running.code() == 0


def test_a_program_is_told_to_end_when_there_is_no_more_reason_to_run(flag: Path) -> None:
    running = Running(flag, "sleep", "600")
    running.child()
    flag.touch()
    assert running.code() == 128 + signal.SIGTERM


def test_the_program_starts_with_default_signals(flag: Path, tmp_path: Path) -> None:
    with odd_signals():
        running = Running(flag, *reporter(tmp_path / "report"))
    assert running.code() == 0
    found = read_report(tmp_path / "report")
    assert found["blocked"] == set()
    assert found["ignored"] <= {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT}  # the tests' own


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_what_nohup_or_a_shell_had_us_ignore_the_program_ignores_too(
    flag: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        running = Running(flag, *reporter(tmp_path / "report"))
    finally:
        signal.signal(number, before)
    assert running.code() == 0
    assert number in read_report(tmp_path / "report")["ignored"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    for fd in (ours, theirs):
        with suppress(OSError):
            os.close(fd)


def test_ctrl_c_at_the_terminal_reaches_the_program_once(
    flag: Path, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.login_tty(theirs)
        argv = python(COUNTS_INTERRUPTS)
        os.execv(sys.executable, [sys.executable, "-c", OURS, str(flag), *argv])
    os.close(theirs)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(ours, 4096)

    until(b"ready")
    os.write(ours, b"\x03")
    until(b"interrupted")
    os.write(ours, b"\n")
    with suppress(OSError):  # how a terminal says that nobody is there any more
        until(b"\0")
    _, status = os.waitpid(pid, 0)
    assert exit_code(status) == 0
    assert seen.count(b"interrupted") == 1
