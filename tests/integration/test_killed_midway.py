"""``kill -9`` in the middle of the main job: of the client, of a session, of a whole instance.

Whatever dies and whenever, the archive is the old one or the new one, the lease ends, and nothing
of it is left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import zipfile
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.gates import Gates
from tests.support.pools import TOOLS, PoolMaker, clean_environment, kill
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

TRIO = ("upload", "vendor", "download")
CONTENT = os.urandom(32 << 20)
"""More than fits into the buffers between two processes, so that neither is done too early."""


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Gates:
    return Gates(tmp_path_factory.mktemp("killed") / "gates")


@pytest.fixture(scope="module")
def pool(gates: Gates) -> Iterator[RunningPool]:
    with PoolMaker() as maker:
        yield maker.start(gates.trio(warm=1, max=1), lease={"ttl": "3s", "max": "10m"})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "site.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("data.js", CONTENT)
        out.writestr("kept.png", b"stays at home")
    return path


@contextlib.contextmanager
def running(pool: RunningPool, gates: Gates, archive: Path) -> Iterator[subprocess.Popen[str]]:
    """``socketpool_client`` with gates in it, in a folder of its own for temporary files."""
    scratch = archive.parents[1] / "tmp"
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            *(TOOLS / "socketpool_client", pool.host, str(pool.port), archive, *TRIO),
            *("--state-dir", pool.state, "--hook", gates.hook),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(scratch) | {"GATES": str(gates.folder), "TMPDIR": str(scratch)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """The client's warnings; it has to succeed."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return errors


def is_new(archive: Path) -> bool:
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        assert file.read("kept.png") == b"stays at home"
        content = file.read("data.js")
    assert content[9:] == CONTENT[9:]
    assert content[:9] in {b"processed", CONTENT[:9]}
    return content[:9] == b"processed"


def sessions(pool: RunningPool) -> list[psutil.Process]:
    """What runs under the instances."""
    found = []
    for instance in pool.instances():
        with contextlib.suppress(psutil.Error):
            found += psutil.Process(instance["pid"]).children(recursive=True)
    return found


def assert_all_given_back(pool: RunningPool) -> None:
    """No lease, nobody at work, nothing in any workspace, and all instances free."""

    def calm() -> bool:
        return (
            pool.request("GET", "/v1/leases").body == []
            and [i["state"] for i in pool.instances()] == ["idle"] * 3
            and not sessions(pool)
        )

    eventually(calm, f"the end of everything; instances: {pool.instances()}")
    assert list((pool.state / "workspaces").iterdir()) == []
    eventually(lambda: not list((pool.state / "trash").iterdir()), "the trash to be emptied")


@pytest.mark.parametrize(
    "gate", ["judging", "upload", "uploaded", "vendor", "download", "merged", "committed"]
)
def test_a_killed_client_leaves_the_old_archive_or_the_new_one_and_no_lease(
    pool: RunningPool, gates: Gates, archive: Path, gate: str
) -> None:
    before = archive.read_bytes()
    gates.arm(gate)
    with running(pool, gates, archive) as client:
        gates.await_held(gate)
        assert bool(pool.request("GET", "/v1/leases").body) == (gate != "judging")
        kill(client.pid)
    assert is_new(archive) == (gate == "committed")
    assert archive.read_bytes() == before or gate == "committed"
    assert_all_given_back(pool)  # a session still stands at the gate, and ends all the same
    gates.open(gate)
    with running(pool, gates, archive) as again:
        finish(again)
    assert is_new(archive)
    assert [p.name for p in archive.parent.iterdir()] == ["site.zip"]
    assert_all_given_back(pool)


def test_a_client_that_is_killed_in_the_queue_is_granted_nothing(
    pool: RunningPool, gates: Gates, archive: Path
) -> None:
    before = archive.read_bytes()
    gates.arm("judging")
    with pool.leased(*TRIO), running(pool, gates, archive) as client:
        gates.await_held("judging")
        gates.open("judging")
        here = psutil.Process(client.pid)
        eventually(
            lambda: [c for c in here.net_connections() if c.raddr and c.raddr.port == pool.port],
            "the client's request",
        )
        kill(client.pid)
    assert_all_given_back(pool)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("gate", ["upload", "uploaded", "vendor", "download", "downloaded"])
@pytest.mark.parametrize("victim", ["session", "instance"])
def test_a_step_whose_server_is_killed_is_taken_up_again(
    pool: RunningPool, gates: Gates, archive: Path, gate: str, victim: str
) -> None:
    gates.arm(gate)
    with running(pool, gates, archive) as client:
        session = gates.await_held(gate)
        instance = psutil.Process(session).ppid()
        assert instance in {i["pid"] for i in pool.instances()}
        kill(session if victim == "session" else instance)
        eventually(lambda: not psutil.pid_exists(session), "the session's end")
        gates.open(gate)
        warnings = finish(client)
    assert "trying again" in warnings
    assert is_new(archive)
    assert_all_given_back(pool)


@pytest.mark.parametrize(("victim", "code"), [("os.getpid()", 7), ("os.getppid()", 5)])
def test_a_service_that_dies_each_time_is_an_error_with_a_code(
    new_pool: PoolMaker, tmp_path: Path, archive: Path, victim: str, code: int
) -> None:
    """A session's crash is the vendor's failure; with an instance only the connection is lost.

    That is tried again for a minute; here the lease ends before that.
    """
    gates = Gates(tmp_path / "gates")
    services = gates.trio(warm=1, max=1)
    services["vendor"]["code"] += f"        os.kill({victim}, 9)\n"
    pool = new_pool.start(services, lease={"ttl": "3s", "max": "6s"})
    before = archive.read_bytes()
    with running(pool, gates, archive) as client:
        _, errors = client.communicate(timeout=120)
    assert client.returncode == code, errors
    assert {5: "lease", 7: "crashed (signal 9, SIGKILL)"}[code] in errors.splitlines()[-2]
    assert archive.read_bytes() == before
    assert_all_given_back(pool)
