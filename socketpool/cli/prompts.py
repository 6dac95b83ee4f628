"""Asking the user for something secret: at the terminal, wherever standard input comes from.

As ssh does, a program (SSH_ASKPASS) asks where there is no terminal but a display.
"""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

from socketpool.cli.base import printable

TERMINAL = Path("/dev/tty")
ASKPASS_SECONDS = 300.0
MAX_ANSWER = 1024


def ask_user(prompt: str, *, echo: bool = False) -> str | None:
    """The answer; None when there is nobody to ask, or no answer."""
    required = os.environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if required not in {"force", "prefer"}:
        asked, answer = _at_terminal(printable(prompt), echo=echo)
        if asked:
            return answer
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if required != "never" and (display or required == "force"):
        return _by_program(printable(prompt))
    return _at_terminal(printable(prompt), echo=echo)[1] if required == "prefer" else None


def _at_terminal(prompt: str, *, echo: bool) -> tuple[bool, str | None]:
    """Whether there is one, and the answer."""
    try:
        with TERMINAL.open("r+b", buffering=0) as terminal:
            if echo:
                terminal.write(prompt.encode())
                line = terminal.readline(MAX_ANSWER)
                return True, line.decode("utf-8", "replace").rstrip("\n") if line else None
    except OSError:
        return False, None
    try:
        return True, getpass.getpass(prompt)
    except EOFError:
        return True, None


def _by_program(prompt: str) -> str | None:
    program = os.environ.get("SSH_ASKPASS") or "/usr/bin/ssh-askpass"
    try:
        done = subprocess.run(
            [program, prompt],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=ASKPASS_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = done.stdout[:MAX_ANSWER].decode("utf-8", "replace").partition("\n")[0]
    return answer if done.returncode == 0 else None
