"""What the SDK costs: bytes through a session, sessions themselves, and an instance that waits.

The peers of a transfer are ``cp`` and a plain ``socket.sendfile`` to a process that writes what
comes.  "Without digest" is the same code with SHA-256 taken out on both sides.  All run in turns.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.catalogue.store.nohash import without_digests
from benchmarks.pool import RunningPool, running_pool
from benchmarks.report import percentile
from socketpool.client.api import PoolClient
from socketpool.client.dial import dial_tcp
from socketpool.client.renewal import leased
from socketpool.protocol.blocks import send_file_block, send_line_block, write_file_block
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.session import await_event, greet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.client.answers import ClientLease

CATALOGUE = Path(__file__).parent / "catalogue"
HOST = "127.0.0.1"
MB = 1_000_000
BUFFER = 1 << 20
ROUNDS = 7


class Session:
    """Sessions on the store."""

    def __init__(self, lease: ClientLease, manner: str = "") -> None:
        self._leased, self._token = lease["store"], lease.token
        self._manner = manner

    @contextmanager
    def open(self) -> Iterator[socket.socket]:
        """One session that is ready."""
        with dial_tcp(self._leased.host, self._leased.port) as stream:
            stream.settimeout(120)
            greet(stream, self._token)
            yield stream

    def upload(self, source: Path) -> None:
        """Send a file to the store."""
        with self.open() as stream, source.open("rb") as file:
            send_line_block(stream, "upload" + self._manner)
            send_file_block(stream, OpenFile(file.fileno(), source.stat().st_size))
            await_event(stream, "done")

    def download(self, target: Path) -> None:
        """Have it back."""
        with self.open() as stream:
            send_line_block(stream, "download" + self._manner)
            write_file_block(stream, target, max_size=1 << 40)
            await_event(stream, "done")


@contextmanager
def _leased(pool: RunningPool) -> Iterator[ClientLease]:
    with (
        closing(PoolClient(HOST, pool.port, pool.token)) as client,
        leased(client, ["store"], wait=30) as lease,
    ):
        yield lease


# -- transfer ------------------------------------------------------------------------------------


def transfer(*, quick: bool) -> list[dict[str, Any]]:
    """Upload and download of 1 GB (quick: 100 MB) against cp and sendfile."""
    size = 100 * MB if quick else 1000 * MB
    with (
        tempfile.TemporaryDirectory(prefix="socketpool-bench-") as folder,
        running_pool(catalogue=CATALOGUE) as pool,
        _leased(pool) as lease,
    ):
        source, target = Path(folder) / "source", Path(folder) / "target"
        _write_noise(source, size)
        ours, plain = Session(lease), Session(lease, " undigested")
        kept = pool.state / "workspaces" / lease.id / "kept"
        acts: dict[str, Callable[[], None]] = {
            "cp": lambda: _copy(source, target),
            "sendfile": lambda: _sendfile(source, target),
            "upload": lambda: ours.upload(source),
            "upload without digest": lambda: _undigested(plain.upload, source),
            "download": lambda: ours.download(target),
            "download without digest": lambda: _undigested(plain.download, target),
            "SHA-256 alone": lambda: _digest(source),
        }
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
        for _ in range(ROUNDS):
            for name, act in acts.items():
                # What a turn would replace is removed before the clock starts, for everybody.
                target.unlink(missing_ok=True)
                if name.startswith("upload"):
                    kept.unlink(missing_ok=True)
                turns[name].append(_timed(pool, act))
    walls = {name: median(wall for wall, _ in taken) for name, taken in turns.items()}
    return [
        {
            "what": name,
            "wall s": walls[name],
            "CPU s, both sides": median(cpu for _, cpu in taken),
            "MB/s": size / MB / walls[name],
            "rate against sendfile": walls["sendfile"] / walls[name],
        }
        for name, taken in turns.items()
    ]


def _timed(pool: RunningPool, act: Callable[[], None]) -> tuple[float, float]:
    before, server, clock = os.times(), pool.cpu_seconds(), time.perf_counter()
    act()
    wall, after = time.perf_counter() - clock, os.times()
    time.sleep(0.1)  # until the runner has reaped the session
    return wall, sum(after[:4]) - sum(before[:4]) + pool.cpu_seconds() - server


def _write_noise(path: Path, size: int) -> None:
    with path.open("wb") as out:
        for start in range(0, size, BUFFER):
            out.write(os.urandom(min(BUFFER, size - start)))
        os.fsync(out.fileno())


def _undigested(act: Callable[[Path], None], path: Path) -> None:
    with without_digests():
        act(path)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", source, target], check=True)


def _sendfile(source: Path, target: Path) -> None:
    with socket.create_server((HOST, 0)) as listener:
        receiver = multiprocessing.get_context("fork").Process(
            target=_take, args=(listener, target)
        )
        receiver.start()
        with socket.create_connection(listener.getsockname()) as stream, source.open("rb") as file:
            stream.sendfile(file)
            stream.shutdown(socket.SHUT_WR)
            stream.recv(1)
        receiver.join()


def _take(listener: socket.socket, target: Path) -> None:
    stream, _ = listener.accept()
    buffer = memoryview(bytearray(BUFFER))
    with stream, target.open("wb", buffering=0) as out:
        while count := stream.recv_into(buffer):
            out.write(buffer[:count])


def _digest(source: Path) -> None:
    with source.open("rb") as file:
        hashlib.file_digest(file, "sha256")


# -- sessions ------------------------------------------------------------------------------------


def sessions(*, quick: bool) -> list[dict[str, Any]]:
    """Set-up of a session, and sessions per second."""
    seconds, rounds = (1.0, 3) if quick else (3.0, 5)
    rows = []
    with running_pool(catalogue=CATALOGUE) as pool, _leased(pool) as lease:
        session = Session(lease)
        for clients in (1, 4):
            taken: list[float] = []
            rates = []
            for _ in range(rounds):
                latencies = _in_parallel(session, clients, seconds)
                taken += latencies
                rates.append(len(latencies) / seconds)
            rows.append(
                {
                    "what": "whole sessions",
                    "clients": clients,
                    "per second": median(rates),
                    "connect to ready, p50 ms": percentile(taken, 0.50) * 1000,
                    "p99 ms": percentile(taken, 0.99) * 1000,
                }
            )
    return rows


def _in_parallel(session: Session, clients: int, seconds: float) -> list[float]:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[float]] = context.Queue()
    workers = [
        context.Process(target=_again_and_again, args=(session, seconds, results))
        for _ in range(clients)
    ]
    for worker in workers:
        worker.start()
    latencies = [one for _ in workers for one in results.get()]
    for worker in workers:
        worker.join()
    return latencies


def _again_and_again(
    session: Session, seconds: float, results: multiprocessing.Queue[list[float]]
) -> None:
    latencies = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        with session.open() as stream:
            latencies.append(time.perf_counter() - started)
            send_line_block(stream, "")
            await_event(stream, "done")
    results.put(latencies)


# -- memory --------------------------------------------------------------------------------------


def memory(*, quick: bool) -> list[dict[str, Any]]:  # noqa: ARG001 - takes no time
    """Resident memory of warm instances that nobody uses, and of one in a session."""
    rows = []
    with running_pool(warm=2) as pool:
        for service in ("upload", "vendor", "download"):
            found = [p for p in _processes(pool) if _serves(p, service)]
            rows.append({"instance": service, "warm": len(found), **_private(found)})
    bare = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    time.sleep(0.3)
    rows.append({"instance": "python3 that waits", "warm": 1, **_private([bare])})
    bare.kill()
    bare.wait()
    return rows


def _processes(pool: RunningPool) -> list[psutil.Process]:
    return psutil.Process(pool.process.pid).children(recursive=True)


def _serves(process: psutil.Process, service: str) -> bool:
    command = process.cmdline()
    return any("socketpool.rsi.runner" in each for each in command) and any(
        each.endswith(f"{service}.json") for each in command
    )


def _private(processes: list[psutil.Process]) -> dict[str, float]:
    def of(process: psutil.Process, *names: str) -> float:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {key: int(value.split()[0]) for key, _, value in (x.partition(":") for x in lines)}
        return sum(sizes[name] for name in names) / 1024

    return {
        "private MiB": median(of(p, "Private_Clean", "Private_Dirty") for p in processes),
        "PSS MiB": median(of(p, "Pss") for p in processes),
        "RSS MiB": median(of(p, "Rss") for p in processes),
    }
