"""The development servers as a user runs them, each in a terminal of its own, so to speak."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.support.pools import TOOLS, clean_environment
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class StepServer:
    """A running ``uploader_server``, ``vendor_server`` or ``downloader_server``."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int = 0

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def token_file(self) -> str:
        line = next(x for x in self.output.splitlines() if x.startswith("token file:"))
        return line.partition(":")[2].strip()

    def await_ready(self) -> None:
        def announced() -> bool:
            assert self.process.poll() is None, f"the server ended: {self.errors}"
            return "stop it:" in self.output

        eventually(announced, "the server's readiness")
        self.port = int(self.output.splitlines()[0].split()[-1])

    def family(self) -> list[psutil.Process]:
        """The server and everything under it."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def stop(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(folder: Path, command: str, *arguments: object) -> Iterator[StepServer]:
    """The command on a free port of loopback; its files, temporary ones too, are in the folder."""
    folder.mkdir()
    (folder / "tmp").mkdir()
    environment = clean_environment(folder) | {"TMPDIR": str(folder / "tmp")}
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [TOOLS / command, "127.0.0.1", "0", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            start_new_session=True,
        )
    server = StepServer(process, folder)
    try:
        server.await_ready()
        yield server
    finally:
        family = server.family() if process.poll() is None else []
        try:
            assert server.stop() in {0, -signal.SIGKILL}, server.errors
            _, alive = psutil.wait_procs(family, timeout=10)
            assert not alive
        finally:
            for left in family:
                with contextlib.suppress(psutil.Error):
                    left.kill()
