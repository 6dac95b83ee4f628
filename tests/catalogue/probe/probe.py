"""probe: a service that does what a test asks for, the good and the bad."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

from socketpool.errors import ServiceFailed
from socketpool.rsi import ServiceServer


class Probe(ServiceServer):
    """One line of JSON says what to do; the answer comes with the verdict."""

    def transfer(self) -> None:
        """Do it."""
        ask: dict[str, Any] = json.loads(self.read_line_block())
        self.answer: Any = getattr(self, "do_" + ask.pop("do"))(**ask)

    def outcome(self) -> dict[str, Any]:
        """What came of it."""
        return {"answer": self.answer}

    def do_echo(self, text: str) -> str:
        """Say it again."""
        return text

    def do_pid(self) -> list[int]:
        """Who we are, and whose child."""
        return [os.getpid(), os.getppid()]

    def do_environment(self) -> dict[str, str]:
        """What the session inherited."""
        return dict(os.environ)

    def do_write(self, name: str, size: int = 1) -> list[str]:
        """Leave a file in the workspace; returns all that is there."""
        with (self.workspace.root / name).open("wb") as out:
            out.write(b"x" * size)
        return sorted(p.name for p in self.workspace.root.iterdir())

    def do_fail(self, message: str) -> None:
        """Fail on purpose."""
        raise ServiceFailed(message, hint="as asked")

    def do_crash(self, secret: str) -> None:
        """Fail by accident."""
        raise RuntimeError(secret)

    def do_die(self) -> None:
        """End without a word."""
        os.kill(os.getpid(), signal.SIGKILL)

    def do_allocate(self, size: int) -> int:
        """Take memory."""
        return len(bytearray(size))

    def do_sleep(self, seconds: float) -> None:
        """Take time."""
        self.progress(0, 1, "sleeping")
        time.sleep(seconds)

    def do_spawn(self) -> int:
        """Start a program and leave it behind."""
        return subprocess.Popen(["sleep", "1000"]).pid
