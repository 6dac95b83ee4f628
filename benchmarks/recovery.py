"""From kill -9 of a listening program until it answers again, and who was refused meanwhile.

The same echo in Python under a pool, under supervisor alone, and under circus.  A client tries all
the time; one whose connection is cut or refused tries again a millisecond later.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.pool import running_pool
from benchmarks.programs import ECHO, HOST, PYTHON, ask, await_answer, find, free_port, running
from benchmarks.report import percentile
from socketpool.client.api import PoolClient

if TYPE_CHECKING:
    from benchmarks.pool import RunningPool

CATALOGUE = Path(__file__).parent / "plain"
OURS = "socketpool"
GIVE_UP = 30.0

SUPERVISOR = """\
[supervisord]
nodaemon=true
pidfile={folder}/supervisord.pid
logfile={folder}/supervisord.log
childlogdir={folder}
[program:echo]
command={command}
autorestart=true
startsecs=0
"""

CIRCUS = """\
[circus]
endpoint = ipc://{folder}/endpoint
pubsub_endpoint = ipc://{folder}/pubsub
[watcher:echo]
cmd = {command}
numprocesses = 1
"""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    rounds = 3 if quick else 15
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp")))
        pool = stack.enter_context(running_pool(catalogue=CATALOGUE))
        client = stack.enter_context(closing(PoolClient(HOST, pool.port, pool.token)))
        candidates = {OURS: (client.instances()[0].port, _supervisord(pool))}
        for name, (program, text) in _peers().items():
            if program is None:
                print(f"skipped, not there: {name}")
                continue
            port = free_port()
            config = folder / f"{name}.conf"
            command = " ".join([*PYTHON, str(ECHO), HOST, str(port)])
            config.write_text(text.format(folder=folder, command=command), encoding="utf-8")
            started = stack.enter_context(running([*program, config], port))
            candidates[name] = (port, started)
        taken: dict[str, list[tuple[float, int]]] = {name: [] for name in candidates}
        for _ in range(rounds):
            for name, (port, supervisor) in candidates.items():
                await_answer(port)
                time.sleep(1.3)  # all of them have noticed by now that it runs
                taken[name].append(_kill_and_wait(port, supervisor))
    ours = median(seconds for seconds, _ in taken[OURS])
    return [
        {
            "what": name,
            "kills": len(found),
            "answers again after ms": median(seconds for seconds, _ in found) * 1000,
            "p90 ms": percentile([seconds for seconds, _ in found], 0.9) * 1000,
            "refused meanwhile": median(refused for _, refused in found),
            "time against ours": median(seconds for seconds, _ in found) / ours,
        }
        for name, found in taken.items()
    ]


def _peers() -> dict[str, tuple[list[object] | None, str]]:
    circusd = find("circusd")
    supervisord: list[object] = [sys.executable, "-m", "supervisor.supervisord", "-c"]
    return {
        "supervisor": (supervisord, SUPERVISOR),
        "circus": ([circusd] if circusd else None, CIRCUS),
    }


def _supervisord(pool: RunningPool) -> psutil.Process:
    return psutil.Process(int((pool.state / "supervisord.pid").read_text(encoding="ascii")))


def _kill_and_wait(port: int, supervisor: psutil.Process) -> tuple[float, int]:
    """Seconds until it answers again, and how many tries were refused or cut."""
    os.kill(_listener(port, supervisor), signal.SIGKILL)
    killed = time.perf_counter()
    refused = 0
    while True:
        try:
            ask(port)
        except OSError:
            refused += 1
        else:
            return time.perf_counter() - killed, refused
        if time.perf_counter() - killed > GIVE_UP:
            raise SystemExit(f"port {port} does not come back")
        time.sleep(0.001)


def _listener(port: int, supervisor: psutil.Process) -> int:
    """The program itself; its supervisor may have put another in its place just now."""
    while True:
        for process in supervisor.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                listens = any(
                    c.status == psutil.CONN_LISTEN and c.laddr.port == port
                    for c in process.net_connections("tcp")
                )
                if listens:
                    return process.pid
        time.sleep(0.05)
