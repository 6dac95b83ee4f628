"""A connection to a warm instance against those that start a program for each.

The same echo in Python behind all of them, in turns.  Each client opens one connection after the
other, sends a line and reads it back.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.pool import running_pool
from benchmarks.programs import ECHO, HOST, PYTHON, ask, find, free_port, running
from benchmarks.report import percentile
from socketpool.client.api import PoolClient
from socketpool.client.renewal import leased

if TYPE_CHECKING:
    from collections.abc import Callable

CATALOGUE = Path(__file__).parent / "plain"
OURS = "warm instance"

XINETD = """\
defaults
{{
    instances = UNLIMITED
    per_source = UNLIMITED
    cps = 1000000 1
}}
service echo-bench
{{
    type = UNLISTED
    bind = {host}
    port = {port}
    protocol = tcp
    socket_type = stream
    wait = no
    user = {user}
    server = {program}
    server_args = {arguments}
}}
"""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    rounds, seconds = (2, 0.5) if quick else (7, 1.5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pool = stack.enter_context(running_pool(catalogue=CATALOGUE))
        client = stack.enter_context(closing(PoolClient(HOST, pool.port, pool.token)))
        lease = stack.enter_context(leased(client, ["echo"], wait=30))
        ports = {OURS: lease["echo"].port}
        for name, command_for in PEERS.items():
            program = find(name)
            if program is None:
                print(f"skipped, not there: {name}")
                continue
            port = free_port()
            stack.enter_context(running(command_for(program, port, folder), port))
            ports[name] = port
        rows = []
        for clients in (1, 4):
            taken: dict[str, list[list[float]]] = {name: [] for name in ports}
            for _ in range(rounds):
                for name, found in taken.items():
                    found.append(_round(ports[name], clients, seconds))
            rates = {
                name: median(len(each) for each in found) / seconds for name, found in taken.items()
            }
            for name, found in taken.items():
                every = [one for each in found for one in each]
                rows.append(
                    {
                        "what": name,
                        "clients": clients,
                        "connections/s": rates[name],
                        "first byte p50 ms": percentile(every, 0.50) * 1000,
                        "p99 ms": percentile(every, 0.99) * 1000,
                        "ours against it": rates[OURS] / rates[name],
                    }
                )
        return rows


def _round(port: int, clients: int, seconds: float) -> list[float]:
    """How long each connection took that so many clients made."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[float]] = context.Queue()
    workers = [
        context.Process(target=_client, args=(port, seconds, results)) for _ in range(clients)
    ]
    for worker in workers:
        worker.start()
    taken = [one for _ in workers for one in results.get()]
    for worker in workers:
        worker.join()
    return taken


def _client(port: int, seconds: float, results: multiprocessing.Queue[list[float]]) -> None:
    taken = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        ask(port)
        taken.append(time.perf_counter() - started)
    results.put(taken)


def _xinetd(program: str, port: int, folder: Path) -> list[object]:
    (folder / "xinetd.conf").write_text(
        XINETD.format(
            host=HOST,
            port=port,
            user=Path.home().owner(),
            program=PYTHON[0],
            arguments=" ".join([*PYTHON[1:], str(ECHO)]),
        ),
        encoding="utf-8",
    )
    pid_file = folder / "xinetd.pid"
    return [program, "-dontfork", "-f", folder / "xinetd.conf", "-pidfile", pid_file]


def _inetd(program: str, port: int, folder: Path) -> list[object]:
    words = (f"{HOST}:{port}", "stream", "tcp", "nowait", Path.home().owner(), PYTHON[0])
    line = " ".join([*words, "python3", *PYTHON[1:], str(ECHO)])
    (folder / "inetd.conf").write_text(line + "\n", encoding="utf-8")
    return [program, "-i", "-R", "100000000", folder / "inetd.conf"]


def _activate(program: str, port: int, _: Path) -> list[object]:
    return [program, "-l", f"{HOST}:{port}", "-a", "--inetd", *PYTHON, ECHO]


def _tcpserver(program: str, port: int, _: Path) -> list[object]:
    return [program, "-H", "-R", "-l", "0", "-c", "1000", HOST, port, *PYTHON, ECHO]


PEERS: dict[str, Callable[[str, int, Path], list[object]]] = {
    "xinetd": _xinetd,
    "inetd": _inetd,
    "systemd-socket-activate": _activate,
    "tcpserver": _tcpserver,
}
