"""What must hold of a running pool at any moment, and when everything has been given back."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import psutil

from tests.support.pools import belongings
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.pools import RunningPool


def fenced(pool: RunningPool) -> dict[int, int]:
    """The ports at which the fence admits anybody, and which generation."""
    generations = memoryview((pool.state / "fence").read_bytes()).cast("Q")
    return {port: generations[port] for port in pool.ports if generations[port]}


def stored(pool: RunningPool) -> list[str]:
    """The leases in the store."""
    with contextlib.closing(sqlite3.connect(pool.state / "leases.sqlite")) as db:
        return [row[0] for row in db.execute("SELECT id FROM live")]


def assert_consistent(pool: RunningPool) -> dict[str, list[int]]:
    """No port is in two leases, and all who know of leases agree; returns the ports by lease.

    For moments in which no lease begins or ends.
    """

    leases = pool.request("GET", "/v1/leases").body
    instances = pool.instances()
    ports = {lease["lease"]: [s["port"] for s in lease["services"]] for lease in leases}
    held = [port for of_one in ports.values() for port in of_one]
    assert len(held) == len(set(held)), ports
    holder = {port: lease for lease, of_one in ports.items() for port in of_one}
    states = {i["port"]: i for i in instances}
    shown = {port: i["lease"] for port, i in states.items() if i["lease"]}
    assert shown == holder
    assert {p for p, i in states.items() if i["state"] in {"leased", "draining"}} == set(holder)
    assert set(fenced(pool)) == set(holder)
    assert set(ports) <= set(stored(pool))
    return ports


def assert_all_free(pool: RunningPool) -> None:
    """Once it has calmed down nobody holds anything, and nothing of any lease is left."""

    def calm() -> bool:
        return (
            pool.request("GET", "/v1/leases").body == []
            and {i["state"] for i in pool.instances()} == {"idle"}
            and not any((pool.state / "workspaces").iterdir())
            and not any((pool.state / "trash").iterdir())
            and not stored(pool)
        )

    try:
        eventually(calm, "everything to be given back")
    except AssertionError:
        left = [
            (p.parent.name, p.name)
            for f in ("workspaces", "trash")
            for p in (pool.state / f).iterdir()
        ]
        raise AssertionError(f"still held: {pool.instances()}, {stored(pool)}, {left}") from None
    assert fenced(pool) == {}
    assert_no_orphan(pool)


def assert_no_orphan(pool: RunningPool) -> None:
    """Every process of the pool is below the command that runs it."""
    for process in belongings(pool.state):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = {process.pid, *(above.pid for above in process.parents())}
            assert pool.process.pid in line, process.cmdline()
