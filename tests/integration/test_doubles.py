"""What a real pool does about services that misbehave: socketpool.testing.doubles, one by one."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
import yaml

from socketpool.testing import Double, write_double
from tests.support.pools import PoolMaker, ended, kill, run_tool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

WORKS = """
from socketpool.rsi import VendorServer

class Works(VendorServer):
    def transfer(self):
        for path in self.members.values():
            path.write_text(path.read_text() + "+")
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    """One pool with all of the doubles, and a vendor that works; it must leave nothing behind."""
    with PoolMaker() as maker:
        folder, ports = maker.folder(), maker.ports()
        for double in Double:
            write_double(folder / "services", double)
        works = folder / "services" / "works"
        works.mkdir()
        (works / "works.py").write_text(WORKS)
        sdk = {"file": "works.py", "class": "Works"}
        service = {"description": "Works.", "sdk": sdk, "client": "vendor", "max": 1}
        (works / "service.yml").write_text(yaml.safe_dump(service))
        config = folder / "pool.yml"
        few = {"upload": {"warm": 1}, "download": {"warm": 1}, "vendor": {"warm": 0}}
        section = {"ports": str(ports)}
        content = {"pool": section, "catalogue": ["shipped", "services"], "services": few}
        config.write_text(yaml.safe_dump(content))
        yield maker.launch(folder, config, ports)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "text")
    return path


@pytest.fixture(autouse=True)
def _others_are_unaffected(pool: RunningPool, archive: Path) -> Iterator[None]:
    """Whatever happens, the service beside it keeps its process and does its work."""
    before = pid_of(pool, "works")
    yield
    untouched = archive.read_bytes()
    result = run(pool, archive, "works")
    assert result.returncode == 0, result.stderr
    assert archive.read_bytes() != untouched
    assert pid_of(pool, "works") == before
    assert pool.request("GET", "/v1/leases").body == []


def pid_of(pool: RunningPool, service: str) -> int:
    pool.await_idle(service, 1)
    (instance,) = pool.instances(service)
    return int(instance["pid"])


def run(
    pool: RunningPool, archive: Path, vendor: str, *options: str
) -> subprocess.CompletedProcess[str]:
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive, "upload", vendor, "download"),
        *("--state-dir", pool.state, *options),
    )


def text_of(archive: Path) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read("a.html").decode()


def test_each_is_shown_for_what_it_is(pool: RunningPool) -> None:
    broken = {Double.CRASHES_AT_ONCE, Double.NEVER_READY}
    for double in Double:
        (instance,) = pool.instances(double)
        pool.await_state(instance["port"], "failed" if double in broken else "idle")
    for double in broken:
        assert f"1 of 1 instances of {double} failed" in pool.errors
    (crashed,) = pool.instances(Double.CRASHES_AT_ONCE)
    assert "crashing as asked" in pool.log(f"{Double.CRASHES_AT_ONCE}-{crashed['port']}")


@pytest.mark.parametrize(
    ("double", "code", "said"),
    [
        (Double.CRASHES_AT_ONCE, 4, "crashes-at-once"),
        (Double.NEVER_READY, 4, "never-ready"),
        (Double.HANGS, 8, "longer than the service allows"),
        (Double.ANSWERS_GARBAGE, 7, "protocol"),
        (Double.LEAKS_MEMORY, 7, "MemoryError"),
    ],
)
def test_the_client_is_told_and_its_archive_stays(
    pool: RunningPool, archive: Path, double: Double, code: int, said: str
) -> None:
    before = archive.read_bytes()
    result = run(pool, archive, double, "--wait", "1")
    assert result.returncode == code, result.stderr
    assert said in result.stderr
    assert archive.read_bytes() == before
    assert pool.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize("double", [Double.HANGS, Double.ANSWERS_GARBAGE, Double.LEAKS_MEMORY])
def test_what_a_session_does_wrong_ends_with_it(
    pool: RunningPool, archive: Path, double: Double
) -> None:
    before = pid_of(pool, double)
    assert run(pool, archive, double).returncode in {7, 8}
    assert pid_of(pool, double) == before, "the instance itself is none the worse"


def test_one_that_is_slow_to_start_is_waited_for(pool: RunningPool, archive: Path) -> None:
    first = pid_of(pool, Double.SLOW_TO_START)
    (instance,) = pool.instances(Double.SLOW_TO_START)
    kill(first)
    pool.await_state(instance["port"], "starting")
    answer = pool.request("POST", "/v1/leases", {"services": [Double.SLOW_TO_START], "wait": 0})
    assert (answer.status, answer.body["code"]) == (503, "no-capacity")
    result = run(pool, archive, Double.SLOW_TO_START)
    assert result.returncode == 0, result.stderr
    assert "works" in result.stdout
    assert pid_of(pool, Double.SLOW_TO_START) != first


def test_one_that_flaps_is_started_again_and_again_and_a_run_through_it_succeeds(
    pool: RunningPool, archive: Path
) -> None:
    pids: set[int] = set()

    def several() -> bool:
        pids.update(i["pid"] for i in pool.instances(Double.FLAPS) if i["state"] == "idle")
        return len(pids) >= 3

    eventually(several, "three processes one after the other")
    result = run(pool, archive, Double.FLAPS)
    assert result.returncode == 0, result.stderr
    assert "flaps: works" in result.stdout
    assert text_of(archive) == "text"


def test_one_that_ignores_sigterm_is_killed_and_recycled(pool: RunningPool) -> None:
    before = pid_of(pool, Double.IGNORES_SIGTERM)
    with pool.leased(Double.IGNORES_SIGTERM) as lease:
        port = lease["services"][0]["port"]
    assert pool.await_state(port, "idle")["pid"] != before
    assert ended(before)


def test_with_all_of_them_in_it_a_pool_stops_clean(new_pool: PoolMaker) -> None:
    folder, ports = new_pool.folder(), new_pool.ports()
    for double in Double:
        write_double(folder / "services", double)
    config = folder / "pool.yml"
    config.write_text(yaml.safe_dump({"pool": {"ports": str(ports)}, "catalogue": ["services"]}))
    pool = new_pool.launch(folder, config, ports)
    assert pool.stop() == 0
    pool.assert_nothing_left()
