"""Lease + release of three services: latency and throughput with 1 and 8 clients.

The peer is a request to the same server that does nothing (``/livez``), measured in turns with it:
the ratio says what a durable lease costs beyond HTTP.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.pool import RunningPool, running_pool
from benchmarks.report import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[http.client.HTTPConnection], None]

SERVICES = ["upload", "vendor", "download"]


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    rounds, seconds = (2, 0.5) if quick else (5, 2.0)
    rows = []
    with running_pool(warm=9) as pool:
        for clients in (1, 8):
            taken: dict[str, list[tuple[float, list[float]]]] = {"lease+release": [], "livez": []}
            for _ in range(rounds):
                for name, found in taken.items():
                    found.append(_round(pool, name, clients, seconds))
            floor = median(rate for rate, _ in taken["livez"])
            for name, found in taken.items():
                rate = median(rate for rate, _ in found)
                latencies = [one for _, each in found for one in each]
                rows.append(
                    {
                        "what": name,
                        "clients": clients,
                        "per second": rate,
                        "p50 ms": percentile(latencies, 0.50) * 1000,
                        "p99 ms": percentile(latencies, 0.99) * 1000,
                        "time against livez": floor / rate,
                    }
                )
    return rows


def _round(pool: RunningPool, name: str, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Rate and latencies of so many clients, each a process with one kept connection."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[list[float]] = context.Queue()
    workers = [
        context.Process(target=_client, args=(pool.port, pool.token, name, seconds, results))
        for _ in range(clients)
    ]
    for worker in workers:
        worker.start()
    latencies = [one for _ in workers for one in results.get()]
    for worker in workers:
        worker.join()
    return len(latencies) / seconds, latencies


def _client(
    port: int, token: str, name: str, seconds: float, results: multiprocessing.Queue[list[float]]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"services": SERVICES, "wait": 10})

    def lease_and_release(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/leases", body, headers)
        answer = connection.getresponse()
        lease = json.loads(answer.read())
        if answer.status != 201:
            raise SystemExit(f"refused: {lease}")
        connection.request("DELETE", f"/v1/leases/{lease['lease']}", headers=headers)
        connection.getresponse().read()

    def livez(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", "/livez")
        connection.getresponse().read()

    act: Act = lease_and_release if name == "lease+release" else livez
    latencies = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        act(connection)
        latencies.append(time.perf_counter() - started)
    results.put(latencies)
