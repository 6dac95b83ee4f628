"""A pool to measure: ``socketpool_server`` on loopback, with a warm set that is large enough."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent

PORTS = "pool: {ports: 20000-20999}\n"

YAML = """\
services:
  upload: {{warm: {warm}, max: {most}}}
  vendor: {{warm: {warm}, max: {most}}}
  download: {{warm: {warm}, max: {most}}}
  web: {{warm: 0}}
"""


class RunningPool(NamedTuple):
    """Where it is."""

    port: int
    state: Path
    process: subprocess.Popen[str]

    @property
    def token(self) -> str:
        """Its API token."""
        return (self.state / "token").read_text(encoding="ascii").strip()

    def cpu_seconds(self) -> float:
        """CPU that all its processes, and those of them that have ended, have used so far."""
        total = 0.0
        root = psutil.Process(self.process.pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total


@contextmanager
def running_pool(
    warm: int = 1,
    *,
    most: int | None = None,
    catalogue: Path | None = None,
    text: str | None = None,
) -> Iterator[RunningPool]:
    """A pool for the length of a ``with`` block, of the shipped services or of other ones.

    There are ``most`` instances of each of the three at most, three times ``warm`` by default.
    ``text`` is the whole configuration instead, in ``pool.yml`` beside the state directory.
    """
    with tempfile.TemporaryDirectory(prefix="socketpool-bench-") as folder:
        config = Path(folder) / "pool.yml"
        services = (
            f"catalogue: ['{catalogue}']"
            if catalogue
            else YAML.format(warm=warm, most=most or warm * 3)
        )
        config.write_text(text or PORTS + services, encoding="utf-8")
        state = Path(folder) / "state"
        process = subprocess.Popen(
            [BIN / "socketpool_server", "127.0.0.1", "0", config, "--state-dir", state],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if not first.startswith("pool ready"):
                raise SystemExit("the pool did not start")
            yield RunningPool(int(first.split()[-1]), state, process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            if process.stdout is not None:
                process.stdout.close()
