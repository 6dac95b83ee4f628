"""Single steps on a lease: it does not run out under them while its pool is at hand."""

from __future__ import annotations

import json
import subprocess
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support.gates import Gates
from tests.support.pools import TOOLS, PoolMaker, run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

TTL = 10.0


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Gates:
    return Gates(tmp_path_factory.mktemp("renewal") / "gates")


@pytest.fixture(scope="module")
def pool(gates: Gates) -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(gates.trio(max=2), lease={"ttl": "1m", "max": "10m"})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "0123456789")
    return path


def lease_file(pool: RunningPool, tmp_path: Path, ttl: str) -> Path:
    """A lease as a user takes one, whose renewal is up to the steps."""
    options = ("--ttl", ttl, "--json", "--state-dir", pool.state)
    granted = run_tool("socketpool", "lease", "upload", "vendor", *options)
    assert granted.returncode == 0, granted.stderr
    path = tmp_path / "lease.json"
    path.write_text(granted.stdout)
    return path


def lease_id(lease: Path) -> str:
    return str(json.loads(lease.read_text())["lease"])


def step(name: str, lease: Path, archive: Path, *options: object) -> list[object]:
    """The command line of a step on the lease."""
    kind = {"uploader": "upload"}.get(name, name)
    services = json.loads(lease.read_text())["services"]
    place = next(s for s in services if s["service"] == kind)
    where = (place["host"], place["port"], archive)
    return [TOOLS / f"{name}_client", *where, "--lease", lease, *options]


def test_a_step_that_outlasts_its_lease_s_time_to_live_renews_it(
    pool: RunningPool, gates: Gates, archive: Path, tmp_path: Path
) -> None:
    lease = lease_file(pool, tmp_path, f"{TTL:g}s")
    at_pool = ("--state-dir", pool.state)
    uploaded = run_tool(*step("uploader", lease, archive, *at_pool))
    assert (uploaded.returncode, uploaded.stderr) == (0, "")
    gates.arm("vendor")
    command = [str(word) for word in step("vendor", lease, archive, *at_pool)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as vendor:
        gates.await_held("vendor")
        time.sleep(1.5 * TTL)
        gates.open("vendor")
        _, errors = vendor.communicate(timeout=60)
    assert (vendor.returncode, errors) == (0, "")
    assert run_tool("socketpool", "release", lease_id(lease), *at_pool).returncode == 0


def test_without_its_pool_a_step_says_that_nobody_renews_and_works(
    pool: RunningPool, archive: Path, tmp_path: Path
) -> None:
    lease = lease_file(pool, tmp_path, "1m")
    alone = run_tool(*step("uploader", lease, archive))
    assert alone.returncode == 0
    assert "nobody renews the lease meanwhile: no pool was ever started" in alone.stderr
    quiet = run_tool(*step("uploader", lease, archive, "-q"))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_a_pool_that_was_named_and_can_not_renew_is_an_error_before_anything_is_sent(
    pool: RunningPool, archive: Path, tmp_path: Path
) -> None:
    lease = lease_file(pool, tmp_path, "1m")
    (tmp_path / "token").write_text("not-the-token-of-this-pool")
    address = f"{pool.host}:{pool.port}"
    wrong = ("--pool", address, "--token-file", tmp_path / "token")
    assert run_tool(*step("uploader", lease, archive, *wrong)).returncode == 5
    assert run_tool(*step("uploader", lease, archive, "--pool", "nonsense")).returncode == 2
    assert run_tool(*step("uploader", lease, archive, "--pool", "127.0.0.1:1")).returncode == 3
    pool.request("DELETE", f"/v1/leases/{lease_id(lease)}")
    ended = run_tool(*step("uploader", lease, archive, "--state-dir", pool.state))
    assert ended.returncode == 5
    assert not (tmp_path / "a.zip.manifest.jsonl").exists()
