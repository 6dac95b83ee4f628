"""A pool under mixed load for as long as one likes; afterwards it must be as it was before.

Clients lease and release, run round trips and abandon leases, while instances are killed and
strangers talk nonsense to them.  Both before and after, the pool is let come to rest and looked
at: what it holds must not have grown.  Meanwhile no instance may be leased twice.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sys
import threading
import time
import zipfile
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click
import psutil

from socketpool.client.api import PoolClient
from socketpool.client.roundtrip import RoundTrip, RunOptions
from socketpool.errors import SocketpoolError
from tests.support.pools import PROBE, WEB, PoolMaker, belongings, listening, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.client.answers import ClientLease
    from tests.support.pools import RunningPool

STEPS = ("upload", "vendor", "download")
SERVICES = ("probe", "web", *STEPS)
ABANDONED_TTL = 1.0
REST_SECONDS = 60.0
ALLOWANCE = {
    # The latest 2,000 histories take some 4 MiB, the allocator's arenas of the server's threads
    # some 8; from there on it was measured flat.
    "server_memory": 16.0,
    "supervisord_memory": 8.0,
    # asyncio starts the threads of its executor when they are first needed, up to so many.
    "server_threads": (os.cpu_count() or 1) + 4,
    # A connection to supervisord may be open just now.
    "server_descriptors": 1,
    "supervisord_descriptors": 1,
}
"""By how much more may be held, however long the load was."""


def start(maker: PoolMaker) -> RunningPool:
    """A pool whose warm sets are all it has, so that their size can't change."""
    fixed: dict[str, Any] = {"warm": 3, "max": 3}
    return maker.start(
        {"probe": PROBE | fixed, "web": WEB | fixed}
        | {name: shipped(name) | fixed for name in STEPS}
    )


@dataclass(frozen=True)
class Holdings:
    """What a pool at rest holds: memory in MiB, everything else as a number."""

    server_memory: float
    supervisord_memory: float
    server_descriptors: int
    supervisord_descriptors: int
    server_threads: int
    processes: int
    ports: int
    workspaces: int
    trash: int
    leases: int
    files: int
    """Entries of the state directory outside of logs: configuration, sockets, the store."""

    def grown(self, before: Holdings) -> dict[str, tuple[float, float]]:
        """What is more than it was, beyond what is allowed."""
        found = {}
        for field in fields(self):
            old, new = getattr(before, field.name), getattr(self, field.name)
            if new > old + ALLOWANCE.get(field.name, 0):
                found[field.name] = (old, new)
        return found


def holdings(pool: RunningPool) -> Holdings:
    """Of a pool that is at rest."""
    server, supervisord = psutil.Process(pool.server_pid()), pool.supervisord()
    names = [path for path in pool.state.rglob("*") if "logs" not in path.parts]
    return Holdings(
        server_memory=server.memory_full_info().uss / (1 << 20),
        supervisord_memory=supervisord.memory_full_info().uss / (1 << 20),
        server_descriptors=server.num_fds(),
        supervisord_descriptors=supervisord.num_fds(),
        server_threads=server.num_threads(),
        processes=len(belongings(pool.state)),
        ports=len(listening(pool.ports)),
        workspaces=len(list((pool.state / "workspaces").iterdir())),
        trash=len(list((pool.state / "trash").iterdir())),
        leases=len(pool.request("GET", "/v1/leases").body),
        files=len(names),
    )


def come_to_rest(pool: RunningPool) -> Holdings:
    """Wait until nothing is leased, on its way or to be deleted; what the pool holds then."""

    def at_rest() -> bool:
        states = {i["state"] for i in pool.instances()}
        left = [*(pool.state / "workspaces").iterdir(), *(pool.state / "trash").iterdir()]
        return states == {"idle"} and not left and not _sessions(pool)

    eventually(at_rest, f"rest; instances: {pool.instances()}", REST_SECONDS)
    before = holdings(pool)

    def settled() -> Holdings | None:
        nonlocal before
        found, before = before, holdings(pool)
        return before if found.grown(before) == before.grown(found) == {} else None

    return eventually(settled, "descriptors and processes that don't change", REST_SECONDS)


def _sessions(pool: RunningPool) -> int:
    """Processes that instances, or the pool server, have started."""
    try:
        return sum(len(process.children()) for process in pool.supervisord().children())
    except psutil.NoSuchProcess:  # not at rest
        return 1


class Ledger:
    """Who holds which port, as far as the clients know; raises when two do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: dict[int, tuple[str, float]] = {}

    def take(self, lease: ClientLease, until: float = float("inf")) -> None:
        """Granted; ``until`` is when an abandoned one may be granted again."""
        with self._lock:
            for service in lease.services:
                holder, end = self._holders.get(service.port, ("", 0.0))
                assert time.monotonic() >= end, (
                    f"{service.port} leased twice: to {lease.id} while {holder} has it"
                )
                self._holders[service.port] = (lease.id, until)

    def give_back(self, lease: ClientLease) -> None:
        """About to be released."""
        with self._lock:
            for service in lease.services:
                self._holders.pop(service.port, None)


class Load:
    """The mixed load on one pool."""

    def __init__(self, pool: RunningPool, folder: Path, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        self._pool = pool
        self._folder = folder
        self._seed = seed
        self._ledger = Ledger()
        self._stop = threading.Event()
        self._original = folder / "original.zip"
        with zipfile.ZipFile(self._original, "w") as out:
            out.writestr("index.html", "<p>  much   space  </p>\n" * 2000)
            out.writestr("logo.png", os.urandom(20_000))

    def run(self, seconds: float) -> None:
        """All at once for so long; raises AssertionError for whatever must not happen."""
        self._stop.clear()
        parts: list[Callable[[random.Random], None]] = [
            *[self._lease_and_release] * 3,
            self._round_trip,
            self._abandon,
            self._kill,
            self._talk_nonsense,
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(part, self._seed + number))
            for number, part in enumerate(parts)
        ]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "a client hangs"
        assert not self.failures, self.failures

    def _repeat(self, part: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        name = part.__name__.strip("_")
        while not self._stop.is_set():
            try:
                part(chance)
                self.done[name] += 1
            except SocketpoolError as error:
                self.done[f"{name}: {type(error).__name__}"] += 1
            except Exception as error:  # noqa: BLE001 - told at the end, of whatever kind
                self.failures.append(f"{name}: {error!r}")
                self._stop.set()

    @contextmanager
    def _client(self) -> Iterator[PoolClient]:
        with closing(PoolClient(self._pool.host, self._pool.port, self._pool.token)) as client:
            yield client

    def _lease_and_release(self, chance: random.Random) -> None:
        names = chance.sample(SERVICES, chance.randint(1, 3))
        with self._client() as client:
            lease = client.acquire(names, ttl=60, wait=20)
            self._ledger.take(lease)
            self._stop.wait(chance.random() * 0.05)
            self._ledger.give_back(lease)
            client.release(lease.id)

    def _round_trip(self, chance: random.Random) -> None:
        path = self._folder / f"{chance.getrandbits(32):x}.zip"
        shutil.copy(self._original, path)
        try:
            with self._client() as client:
                RoundTrip(client, path, STEPS, RunOptions(wait=20)).run()
            with zipfile.ZipFile(path) as file:
                assert file.testzip() is None
                assert len(file.read("index.html")) < 40_000
        except SocketpoolError:
            assert path.read_bytes() == self._original.read_bytes(), "touched by a failed run"
            raise
        finally:
            path.unlink()

    def _abandon(self, chance: random.Random) -> None:
        with self._client() as client:
            asked = time.monotonic()
            lease = client.acquire([chance.choice(SERVICES)], ttl=ABANDONED_TTL, wait=20)
            self._ledger.take(lease, until=asked + ABANDONED_TTL)
        self._stop.wait(0.5)

    def _kill(self, chance: random.Random) -> None:
        running = [i for i in self._pool.instances() if i["pid"]]
        if running:
            with suppress(psutil.Error):
                psutil.Process(chance.choice(running)["pid"]).kill()
        self._stop.wait(1.5)

    def _talk_nonsense(self, chance: random.Random) -> None:
        port = chance.choice(self._pool.instances())["port"]
        with suppress(OSError), socket.create_connection((self._pool.host, port), 5) as stream:
            stream.sendall(chance.randbytes(chance.randint(0, 200)))
            self._stop.wait(0.05)
        self._stop.wait(0.1)


def soak(pool: RunningPool, seconds: float, *, seed: int) -> tuple[Holdings, Holdings, Load]:
    """Warm up, look, load for so long, look again; raises AssertionError for a double lease."""
    load = Load(pool, pool.folder, seed)
    load.run(max(8.0, seconds / 5))
    before = come_to_rest(pool)
    load.run(seconds)
    return before, come_to_rest(pool), load


def main(seconds: float) -> int:
    """``script/soak [SECONDS]``: tell what was done and what has grown."""
    seed = random.randrange(1 << 32)
    click.echo(f"seed {seed}; {seconds:g} s of load")
    with PoolMaker() as maker:
        before, after, load = soak(start(maker), seconds, seed=seed)
    for what, count in sorted(load.done.items()):
        click.echo(f"  {count:>8} {what}")
    for field in fields(after):
        click.echo(
            f"  {field.name:<24} {getattr(before, field.name):>10.6g} -> "
            f"{getattr(after, field.name):.6g}"
        )
    grown = after.grown(before)
    click.echo(f"has grown: {grown}" if grown else "nothing has grown")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0))
