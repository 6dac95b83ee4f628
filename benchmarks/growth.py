"""Growing by many instances at once: how long it takes, and what leases notice of it meanwhile.

A reload asks for so many instances of a plain Python program while one client leases and releases
another service all the time.  The same number of programs started by hand, one after the other and
as fast as the pool did it, shows what the machine itself costs the client.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.pool import PORTS, RunningPool, running_pool
from benchmarks.programs import ECHO, HOST, PYTHON
from benchmarks.report import percentile
from socketpool.client.api import PoolClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

CATALOGUE = Path(__file__).parent / "plain"

YAML = """\
catalogue: [shipped, '{catalogue}']
services:
  upload: {{warm: 8, max: 8}}
  vendor: {{warm: 0}}
  download: {{warm: 0}}
  web: {{warm: 0}}
  echo: {{warm: {warm}, max: {most}}}
"""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    seconds = 3.0 if quick else 10.0
    return [_grow_by(count, seconds) for count in ((10, 100) if quick else (10, 100, 500))]


def _grow_by(count: int, seconds: float) -> dict[str, Any]:
    with (
        running_pool(text=_yaml(0, count)) as pool,
        closing(PoolClient(HOST, pool.port, pool.token)) as client,
    ):
        with _leasing(pool) as idle:
            time.sleep(seconds)
        started = time.perf_counter()
        with _leasing(pool) as growing:
            (pool.state.parent / "pool.yml").write_text(_yaml(count, count), encoding="utf-8")
            client.reload()
            while _idle(client) < count:
                time.sleep(0.05)
            took = time.perf_counter() - started
        with _leasing(pool) as by_hand:
            _start_by_hand(count, took)
        with _leasing(pool) as grown:
            time.sleep(seconds)
        time.sleep(2)
        before = _cpu(pool)
        time.sleep(seconds)
        cpu = (_cpu(pool) - before) / seconds
        memory = {name: _private(process) for name, process in _ours(pool).items()}
        instances = [p for p in _supervisord(pool).children() if str(ECHO) in p.cmdline()]
        return {
            "instances": count,
            "all ready after s": took,
            "lease p99 ms idle": idle[0] * 1000,
            "growing": growing[0] * 1000,
            "by hand": by_hand[0] * 1000,
            "grown": grown[0] * 1000,
            "growing against idle": growing[0] / idle[0],
            "against by hand": growing[0] / by_hand[0],
            "longest ms": growing[1] * 1000,
            "idle CPU %": cpu * 100,
            "server MiB": memory["socketpool.server"],
            "supervisord MiB": memory["supervisor.supervisord"],
            "MiB each": median(map(_private, instances)),
        }


def _yaml(warm: int, most: int) -> str:
    return PORTS + YAML.format(catalogue=CATALOGUE, warm=warm, most=most)


def _idle(client: PoolClient) -> int:
    echo = next(s for s in client.services() if s.service == "echo")
    return echo.instances.get("idle", 0)


@contextmanager
def _leasing(pool: RunningPool) -> Iterator[list[float]]:
    """One client leases and releases meanwhile; afterwards its p99 and its longest, in seconds."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    results: multiprocessing.Queue[list[float]] = context.Queue()
    worker = context.Process(target=_client, args=(pool.port, pool.token, stop, results))
    worker.start()
    found: list[float] = []
    try:
        yield found
    finally:
        stop.set()
        taken = results.get()
        worker.join()
        found += [percentile(taken, 0.99), max(taken)]


def _client(
    port: int, token: str, stop: Event, results: multiprocessing.Queue[list[float]]
) -> None:
    connection = http.client.HTTPConnection(HOST, port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"services": ["upload"], "wait": 30})
    taken = []
    while not stop.is_set():
        started = time.perf_counter()
        connection.request("POST", "/v1/leases", body, headers)
        lease = json.loads(connection.getresponse().read())
        connection.request("DELETE", f"/v1/leases/{lease['lease']}", headers=headers)
        connection.getresponse().read()
        taken.append(time.perf_counter() - started)
        time.sleep(0.002)
    results.put(taken)


def _start_by_hand(count: int, seconds: float) -> None:
    """The same programs, spread over as long as the pool took, and ended."""
    began = time.perf_counter()
    programs = []
    for number in range(count):
        programs.append(
            subprocess.Popen([*PYTHON, ECHO], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        )
        due = began + seconds * (number + 1) / count
        time.sleep(max(0.0, due - time.perf_counter()))
    for program in programs:
        program.communicate()


def _ours(pool: RunningPool) -> dict[str, psutil.Process]:
    """The two processes that do the pool's work, by their modules."""
    supervisord = _supervisord(pool)
    modules = ("socketpool.server", "supervisor.supervisord")
    return {
        module: process
        for process in (supervisord, *supervisord.children())
        for module in modules
        if module in process.cmdline()
    }


def _supervisord(pool: RunningPool) -> psutil.Process:
    return psutil.Process(int((pool.state / "supervisord.pid").read_text(encoding="ascii")))


def _cpu(pool: RunningPool) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _ours(pool).values())


def _private(process: psutil.Process) -> float:
    return float(process.memory_full_info().uss) / (1 << 20)
