"""A state directory whose disk is full or takes no writes: clear refusals, and nothing damaged."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from socketpool.errors import ServiceFailed
from tests.support.invariants import assert_all_free, assert_consistent, fenced
from tests.support.pools import PROBE, WEB, PoolMaker, ask_probe, kill
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

SERVICES = {"probe": PROBE | {"warm": 3, "max": 3}, "web": WEB | {"warm": 1, "max": 1}}
MIB = 1 << 20


@contextlib.contextmanager
def mounted(place: Path, *how: str) -> Iterator[None]:
    """A file system of its own in an empty directory."""
    place.mkdir()
    subprocess.run(["mount", *how, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def pool_on(*disk: str, ready: bool = True) -> Iterator[RunningPool]:
    """A pool whose state directory is a file system that is mounted so."""
    with PoolMaker() as outer:
        folder, ports = outer.folder(), outer.ports()
        path = outer.write(folder, SERVICES, ports=ports)
        with mounted(folder / "s", *disk), PoolMaker() as maker:
            yield maker.launch(folder, path, ports, ready=ready)


def refused_for_the_store(pool: RunningPool) -> bool:
    answer = pool.request("POST", "/v1/leases", {"services": ["probe"], "wait": 0})
    if answer.status == 201:
        pool.release(answer.body)
        return False
    assert (answer.status, answer.body["code"]) == (503, "store-unavailable")
    assert "disk" in answer.body["hint"]
    assert int(answer.headers["retry-after"]) > 0
    return True


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as hog:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    hog.write(bytes(size))


def test_on_a_full_disk_leases_are_refused_and_end_and_then_all_is_well_again() -> None:
    with pool_on("-t", "tmpfs", "-o", "size=24m", "none") as pool:
        server = pool.server_pid()
        kept, ending = pool.lease("probe", ttl=300), pool.lease("probe", "web", ttl=300)
        ask_probe(ending, "write", name="left.txt")
        hog = pool.state / "scratch" / "hog"
        fill(hog)
        eventually(lambda: refused_for_the_store(pool), "the disk's end to be felt")
        assert len(assert_consistent(pool)) == 2, "what is refused takes nothing"
        assert pool.request("POST", f"/v1/leases/{kept['lease']}/renew").status == 200
        with pytest.raises(ServiceFailed, match="OSError"):
            ask_probe(kept, "write", name="big.bin", size=MIB)
        pool.release(ending)
        assert {s["port"] for s in ending["services"]}.isdisjoint(fenced(pool))
        fill(hog.with_name("more"))
        # Whatever is logged has nowhere to go, and the pool must not care.
        for _ in range(50):
            assert refused_for_the_store(pool)
            with pytest.raises(ServiceFailed, match="OSError"):
                ask_probe(kept, "write", name="big.bin", size=MIB)

        hog.unlink()
        with pool.leased("probe", "probe", "web", wait=30) as lease:
            assert ask_probe(lease, "echo", text="x") == "x"
            assert ask_probe(kept, "echo", text="x") == "x"
        assert pool.server_pid() == server, "it did not even have to be restarted"
        kill(server)
        pool.await_server(after=server)
        assert list(assert_consistent(pool)) == [kept["lease"]]
        pool.release(kept)
        hog.with_name("more").unlink()
        assert_all_free(pool)


def test_on_a_disk_that_takes_no_writes_any_more_leases_end_and_none_begins(tmp_path: Path) -> None:
    """As a kernel has it with a disk that fails: not even open files can be written to."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    disk = ("-o", "loop", str(image))

    with pool_on(*disk) as pool:
        server = pool.server_pid()
        kept, ending = pool.lease("probe", ttl=300), pool.lease("probe", "web", ttl=300)
        # As it is after some seconds: nothing is left that would only have to be changed again.
        subprocess.run(["sync", "--file-system", pool.state / "fence"], check=True)
        subprocess.run(["mount", "-o", "remount,abort", pool.state], check=True)
        eventually(lambda: refused_for_the_store(pool), "the disk's end to be felt")
        assert len(assert_consistent(pool)) == 2
        with pytest.raises(ServiceFailed, match="Read-only file system"):
            ask_probe(kept, "echo", text="x")
        assert pool.request("POST", f"/v1/leases/{kept['lease']}/renew").status == 200
        pool.release(ending)
        assert {s["port"] for s in ending["services"]}.isdisjoint(fenced(pool))
        assert refused_for_the_store(pool)
        assert pool.server_pid() == server
        assert pool.stop() == 0
        pool.assert_nothing_left()

    with pool_on(*disk) as pool:
        assert_all_free(pool)
        with pool.leased("probe", "web") as lease:
            assert ask_probe(lease, "echo", text="x") == "x"

    with pool_on(*disk, "-o", "ro", ready=False) as refused:
        assert refused.process.wait(60) == 2
        assert "Read-only file system" in refused.errors
        assert "Traceback" not in refused.errors
