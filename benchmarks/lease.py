"""Lease + release of three services: latency, throughput and CPU with 1, 8 and 64 clients.

The peer is a request to the same server that does nothing (``/livez``), measured in turns with it:
the ratio says what a durable lease costs beyond HTTP.  64 clients are measured twice: with so few
instances that most requests wait for their turn, and with one of each service for every client.
"""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.load import Script, run
from benchmarks.pool import RunningPool, running_pool
from benchmarks.report import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICES = ["upload", "vendor", "download"]
CLIENTS_AT = {16: (1, 8, 64), 64: (64,)}
"""Instances of each service, and the numbers of clients that are measured with them."""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    rounds, seconds = (2, 1.0) if quick else (5, 4.0)
    rows = []
    for instances, numbers in CLIENTS_AT.items():
        with running_pool(warm=instances, most=instances) as pool:
            for clients in numbers:
                rows += _measure(pool, instances, clients, rounds, seconds)
    return rows


def _measure(
    pool: RunningPool, instances: int, clients: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    scripts = {"lease+release": _lease_and_release(pool), "livez": _livez}
    server = _server(pool)
    taken: dict[str, list[tuple[list[float], float]]] = {name: [] for name in scripts}
    for _ in range(rounds):
        for name, script in scripts.items():
            before = sum(server.cpu_times()[:2])
            latencies = run(pool.port, clients, seconds, script)
            used = sum(server.cpu_times()[:2]) - before
            taken[name].append((latencies, used / len(latencies)))
    floor = median(len(latencies) for latencies, _ in taken["livez"])
    rows = []
    for name, found in taken.items():
        count = median(len(latencies) for latencies, _ in found)
        every = [one for latencies, _ in found for one in latencies]
        rows.append(
            {
                "what": name,
                "instances": instances,
                "clients": clients,
                "per second": count / seconds,
                "p50 ms": percentile(every, 0.50) * 1000,
                "p99 ms": percentile(every, 0.99) * 1000,
                "server CPU us": median(used for _, used in found) * 1e6,
                "time against livez": floor / count,
            }
        )
    return rows


def _server(pool: RunningPool) -> psutil.Process:
    """The pool server itself, without supervisord and the instances."""
    return next(
        process
        for process in psutil.Process(pool.process.pid).children(recursive=True)
        if process.cmdline()[-2:] == ["socketpool.server", str(pool.state)]
    )


def _lease_and_release(pool: RunningPool) -> Callable[[], Script]:
    head = f"Host: pool\r\nAuthorization: Bearer {pool.token}\r\n".encode()
    body = json.dumps({"services": SERVICES, "wait": 30}).encode()
    create = (
        b"POST /v1/leases HTTP/1.1\r\n%bContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (head, len(body), body)
    )

    def script() -> Script:
        answer = yield create
        _check(answer, b"201")
        lease = json.loads(answer.partition(b"\r\n\r\n")[2])["lease"].encode()
        answer = yield b"DELETE /v1/leases/%b HTTP/1.1\r\n%b\r\n" % (lease, head)
        _check(answer, b"204")

    return script


def _livez() -> Script:
    answer = yield b"GET /livez HTTP/1.1\r\nHost: pool\r\n\r\n"
    _check(answer, b"200")


def _check(answer: bytes, status: bytes) -> None:
    if answer.split(b" ", 2)[1] != status:
        raise SystemExit(f"refused: {answer!r}")
