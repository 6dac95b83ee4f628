"""The doctor's checks, each on facts that are well and on facts that are not."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from socketpool.config.settings import Settings, load_settings
from socketpool.core.ports import PortRange
from socketpool.doctor import checks
from socketpool.doctor.checks import examine
from socketpool.doctor.facts import (
    Clock,
    Descriptors,
    Disk,
    Facts,
    FileFact,
    Finding,
    Level,
    Listener,
    ProgramFact,
    SupervisordFact,
)
from socketpool.errors import ConfigError

ROOT = Path("/state")
EPHEMERAL = PortRange(32768, 60999)
NOW = 1_800_000_000.0
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM


def kept(name: str, mode: int, owner: int = 1000) -> FileFact:
    return FileFact(ROOT / name, mode, owner)


FILES = (
    FileFact(ROOT, stat.S_IFDIR | 0o700, 1000),
    kept("token", stat.S_IFREG | 0o600),
    kept("lease.key", stat.S_IFREG | 0o600),
    kept("leases.sqlite", stat.S_IFREG | 0o600),
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("21000-21499", ephemeral=EPHEMERAL)


@pytest.fixture
def well(settings: Settings) -> Facts:
    """A pool that runs, on a host with nothing to complain about."""
    return Facts(
        source="pool.yml",
        settings=settings,
        refusal=None,
        user=1000,
        ephemeral=EPHEMERAL,
        reserved=(),
        listeners=(Listener("127.0.0.1", 21000, 5, "python", ours=True),),
        strays=(),
        descriptors=(Descriptors("supervisord", 8192, 40),),
        disk=Disk(ROOT, 50 << 30, 1_000_000, writable=True),
        clock=Clock(NOW, 0.0, synchronised=True, newest_file=NOW - 5),
        state_root=ROOT,
        state_files=FILES,
        unreadable=(),
        configuration_files=(FileFact(Path("/etc/pool.yml"), 0o100644, 0),),
        supervisord=SupervisordFact(
            "4.3.0", pool_running=True, answers="4.3.0", server_state="RUNNING"
        ),
        programs=(ProgramFact("web", "/usr/bin/python3", runnable=True),),
    )


def complaints(facts: Facts) -> list[Finding]:
    return [finding for finding in examine(facts) if finding.level is not OK]


def the_complaint(facts: Facts) -> Finding:
    (finding,) = complaints(facts)
    return finding


def test_a_healthy_pool_gives_no_complaint(well: Facts) -> None:
    assert complaints(well) == []
    assert len(examine(well)) >= 7


def test_a_pool_before_its_first_start_gives_no_complaint(well: Facts) -> None:
    before = replace(
        well,
        listeners=(),
        descriptors=(Descriptors("a pool started from here", 1 << 20),),
        state_files=(),
        clock=Clock(NOW, 0.0, synchronised=None),
        supervisord=SupervisordFact("4.2.5", pool_running=False, refusal="nobody"),
    )
    assert complaints(before) == []


def test_a_refused_configuration_is_told_and_the_rest_is_looked_at(well: Facts) -> None:
    refusal = ConfigError("pool.yml, line 3: no", hint="write yes")
    broken = replace(well, settings=None, refusal=refusal, programs=())
    finding = the_complaint(broken)
    assert finding == Finding("catalogue", PROBLEM, "pool.yml, line 3: no", "write yes")
    assert {f.check for f in examine(broken)} >= {"disk", "clock", "supervisord", "files"}


def test_a_missing_program_is_a_problem_where_it_is_kept_warm(
    well: Facts, settings: Settings
) -> None:
    missing = replace(well, programs=(ProgramFact("web", "redis-server", runnable=False),))
    assert the_complaint(missing).level is PROBLEM
    assert "redis-server" in the_complaint(missing).what
    cold = settings.services["web"].model_copy(update={"warm": 0})
    lazy = settings.model_copy(update={"services": settings.services | {"web": cold}})
    assert the_complaint(replace(missing, settings=lazy)).level is WARNING


def test_ports_that_are_reserved_in_part_are_told(well: Facts) -> None:
    partly = the_complaint(replace(well, reserved=(range(21490, 21600),)))
    assert (partly.check, partly.level) == ("ports", WARNING)
    assert "21490" in partly.what
    assert complaints(replace(well, reserved=(range(21000, 21500),))) == []


@pytest.mark.parametrize(
    ("host", "port", "level"),
    [
        ("127.0.0.1", 21007, WARNING),
        ("0.0.0.0", 21007, WARNING),
        ("::", 21007, WARNING),
        ("127.0.0.1", 8080, PROBLEM),
        ("127.0.0.2", 21007, None),
        ("127.0.0.1", 22000, None),
    ],
)
def test_a_port_that_another_program_holds_is_told_with_its_holder(
    well: Facts, host: str, port: int, level: Level | None
) -> None:
    found = complaints(replace(well, listeners=(Listener(host, port, 77, "thief"),)))
    assert [f.level for f in found] == ([level] if level else [])
    for finding in found:
        assert f"port {port} is held by thief (pid 77" in finding.what
        assert finding.hint


def test_many_busy_ports_are_told_in_short(well: Facts) -> None:
    thieves = tuple(Listener("127.0.0.1", port) for port in range(21000, 21100))
    found = complaints(replace(well, listeners=thieves))
    assert len(found) == 6
    assert "another user" in found[0].what
    assert "and 90 more" in found[-1].what


def test_too_few_free_ports_are_a_problem_when_warm_instances_do_not_fit(
    well: Facts, settings: Settings
) -> None:
    few = replace(well, settings=settings.model_copy(update={"ports": PortRange(21000, 21009)}))
    assert the_complaint(few).level is WARNING
    none = replace(few, listeners=tuple(Listener("::", p) for p in range(21000, 21010)))
    assert PROBLEM in {f.level for f in complaints(none)}


def test_processes_left_by_a_killed_pool_are_told(well: Facts) -> None:
    assert "4711" in the_complaint(replace(well, strays=(4711,))).what


@pytest.mark.parametrize(
    ("hard", "used", "level"),
    [(600, None, PROBLEM), (4096, None, WARNING), (8192, 7000, PROBLEM), (8192, 6000, OK)],
)
def test_descriptors(well: Facts, hard: int, used: int | None, level: Level) -> None:
    facts = replace(well, descriptors=(Descriptors("supervisord", hard, used),))
    (finding,) = checks.check_descriptors(facts)
    assert finding.level is level
    assert str(hard) in finding.what


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        ({"writable": False}, PROBLEM),
        ({"free_bytes": 100 << 20}, PROBLEM),
        ({"free_bytes": 600 << 20}, WARNING),
        ({"free_inodes": 0}, PROBLEM),
        ({"free_inodes": 500}, PROBLEM),
        ({"free_inodes": 5000}, WARNING),
        ({"free_inodes": None}, OK),
    ],
)
def test_disk(well: Facts, changed: dict[str, Any], level: Level) -> None:
    (finding,) = checks.check_disk(replace(well, disk=replace(well.disk, **changed)))
    assert finding.level is level


@pytest.mark.parametrize(
    ("changed", "level", "says"),
    [
        ({"wall": 0.0}, PROBLEM, "1970"),
        ({"wall": 5e9}, PROBLEM, "2128"),
        ({"newest_file": NOW + 4000}, WARNING, "4000 s from the future"),
        ({"newest_file": NOW + 10}, OK, "2027"),
        ({"drift": -3.0}, WARNING, "-3.00 s"),
        ({"synchronised": False}, WARNING, "not synchronised"),
        ({"synchronised": None}, OK, "not known"),
    ],
)
def test_clock(well: Facts, changed: dict[str, Any], level: Level, says: str) -> None:
    (finding,) = checks.check_clock(replace(well, clock=replace(well.clock, **changed)))
    assert finding.level is level
    assert says in finding.what


@pytest.mark.parametrize(
    ("changed", "level", "says"),
    [
        ({"answers": "4.2.4"}, WARNING, "4.2.4"),
        ({"answers": "4.4.0"}, WARNING, "4.4.0"),
        ({"answers": "4.3.0.dev0"}, OK, ""),
        ({"answers": "", "refusal": "no socket"}, PROBLEM, "no socket"),
        ({"answers": "", "installed": "", "pool_running": False}, PROBLEM, "not installed"),
        ({"server_state": "FATAL"}, PROBLEM, "FATAL"),
        ({"server_state": ""}, PROBLEM, "unknown"),
    ],
)
def test_supervisord(well: Facts, changed: dict[str, Any], level: Level, says: str) -> None:
    found = list(
        checks.check_supervisord(replace(well, supervisord=replace(well.supervisord, **changed)))
    )
    worst = [f for f in found if f.level is not OK]
    assert [f.level for f in worst] == ([] if level is OK else [level])
    assert all(says in f.what for f in worst)


def test_root_is_warned(well: Facts) -> None:
    root = replace(well, user=0, state_files=(), unreadable=())
    assert the_complaint(root).check == "account"


@pytest.mark.parametrize(
    ("files", "level", "says"),
    [
        ((kept("", 0o40755), *FILES[1:]), PROBLEM, "0755"),
        ((*FILES, kept("token", 0o100640)), PROBLEM, "/state/token"),
        ((*FILES, kept("lease.key", 0o100604)), PROBLEM, "/state/lease.key"),
        ((*FILES, kept("pool.json", 0o100644)), WARNING, "/state/pool.json"),
        ((*FILES, kept("pool.json", 0o100600, 0)), PROBLEM, "another owner"),
    ],
)
def test_state_files(well: Facts, files: tuple[FileFact, ...], level: Level, says: str) -> None:
    finding = the_complaint(replace(well, state_files=files))
    assert finding.level is level
    assert says in finding.what
    assert finding.hint


def test_another_users_state_directory_is_told(well: Facts) -> None:
    theirs = replace(well, user=1001, state_files=FILES[:1], unreadable=(ROOT,))
    found = [f for f in complaints(theirs) if f.check == "files"]
    assert {f.level for f in found} == {WARNING, PROBLEM}
    assert all("account" in f.hint for f in found)


@pytest.mark.parametrize(
    ("mode", "owner", "bad"),
    [(0o100644, 0, False), (0o100644, 1000, False), (0o100664, 0, True), (0o100644, 33, True)],
)
def test_a_configuration_that_others_may_change_is_told(
    well: Facts, mode: int, owner: int, *, bad: bool
) -> None:
    facts = replace(well, configuration_files=(FileFact(Path("/etc/pool.yml"), mode, owner),))
    assert [f.level for f in complaints(facts)] == ([WARNING] if bad else [])


def test_whatever_is_wrong_comes_with_what_to_do(well: Facts) -> None:
    bad = replace(
        well,
        refusal=ConfigError("no"),
        settings=None,
        user=0,
        strays=(1,),
        descriptors=(Descriptors("x", 10), Descriptors("y", 10, 10)),
        disk=Disk(ROOT, 0, 0, writable=True),
        clock=Clock(0, 9.0, synchronised=False),
        state_files=(kept("", 0o40777, 5), kept("token", 0o100666), kept("x", 0o100666)),
        unreadable=(ROOT,),
        configuration_files=(FileFact(Path("/x"), 0o100666, 5),),
        supervisord=SupervisordFact("3.0", pool_running=True),
    )
    found = complaints(bad)
    assert len(found) >= 13
    assert all(finding.hint for finding in found)
