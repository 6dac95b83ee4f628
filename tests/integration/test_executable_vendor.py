"""Vendors in any language: a program in a directory of the members."""

from __future__ import annotations

import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pools import ended, run_tool, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import PoolMaker, RunningPool

TRIO = ("upload", "vendor", "download")

PROGRAMS = {
    "shout": 'for f in $(find . -name "*.html"); do tr a-z A-Z <"$f" >up; mv up "$f"; done',
    "adds": "echo new >added.html",
    "deletes": "rm a.html",
    "links": "rm a.html; ln -s /etc/passwd a.html",
    "fails": "echo the reason is hunter2 >&2; exit 3",
    "crashes": "echo the reason is hunter2; kill -SEGV $$",
    "tells": "echo told; env >a.html",
    "lingers": "sleep 600 & echo $! >a.html",
    "hangs": "sleep 600",
    "writes": "head -c 20000000 /dev/zero >big || exit 9; rm big",
}


DOUBLES = """
from socketpool.rsi import VendorServer

class Doubles(VendorServer):
    def transfer(self):
        for path in self.members.values():
            path.write_text(path.read_text() * 2)
"""


def program(script: str, **more: Any) -> dict[str, Any]:
    sdk = {"executable": ["sh", "-c", script]} | more.pop("sdk", {})
    return {"description": "a program", "sdk": sdk, "client": "vendor"} | more


TELLS_PATHS = """
from socketpool.errors import ConfigError
from socketpool.rsi import VendorServer

class TellsPaths(VendorServer):
    def transfer(self):
        raise ConfigError("/srv/vendor/settings.yml: password: hunter2 is too short")
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    from tests.support.pools import PoolMaker

    services = {name: program(script) for name, script in PROGRAMS.items()}
    services["tells"]["environment"] = {"SECRET_OF_VENDOR": "configured"}
    services["hangs"]["limits"] = {"session_time": "1s"}
    services["writes"]["limits"] = {"file_size": "1M"}
    services["tolerant"] = program(PROGRAMS["adds"], sdk={"added": "ignore"})
    services["missing"] = program("")
    services["missing"]["sdk"]["executable"] = ["{folder}/not-there"]
    services["doubles"] = {
        "description": "a class",
        "sdk": {"file": "doubles.py", "class": "Doubles"},
        "client": "vendor",
        "code": DOUBLES,
    }
    services["paths"] = {
        "description": "a class",
        "sdk": {"file": "paths.py", "class": "TellsPaths"},
        "client": "vendor",
        "code": TELLS_PATHS,
    }
    services |= {"upload": shipped("upload"), "download": shipped("download")}
    with PoolMaker() as maker:
        yield maker.start(services)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "small letters\n")
        out.writestr("deep/er/b.html", "more of them\n")
        out.writestr("picture.png", "not sent")
    return path


def run(pool: RunningPool, archive: Path, *vendors: str) -> subprocess.CompletedProcess[str]:
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive, "upload", *vendors, "download"),
        *("--state-dir", pool.state),
    )


def read(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def test_what_the_program_changes_goes_back(pool: RunningPool, archive: Path) -> None:
    result = run(pool, archive, "shout")
    assert result.returncode == 0, result.stderr
    assert read(archive) == {
        "a.html": "SMALL LETTERS\n",
        "deep/er/b.html": "MORE OF THEM\n",
        "picture.png": "not sent",
    }


@pytest.mark.parametrize(
    ("vendor", "said"),
    [
        ("adds", "added what can't be given back: 'added.html'"),
        ("deletes", "deleted what can't be given back: 'a.html'"),
        ("links", "deleted what can't be given back: 'a.html'"),
        ("fails", "failed (exit code 3)"),
        ("crashes", "failed (signal 11, SIGSEGV)"),
        ("missing", "can't be run"),
        ("writes", "failed"),
    ],
)
def test_what_can_not_be_given_back_is_refused_and_the_original_stays(
    pool: RunningPool, archive: Path, vendor: str, said: str
) -> None:
    before = archive.read_bytes()
    result = run(pool, archive, vendor)
    assert result.returncode == 7
    assert said in result.stderr
    assert archive.read_bytes() == before


@pytest.mark.parametrize(
    ("vendors", "text"),
    [
        (["shout", "doubles"], "SMALL LETTERS\n" * 2),
        (["doubles", "shout"], "SMALL LETTERS\n" * 2),
        (["doubles", "doubles"], "small letters\n" * 4),
        (["doubles", "shout", "doubles"], "SMALL LETTERS\n" * 4),
    ],
    ids=["program then class", "class then program", "named twice", "named twice around another"],
)
def test_each_vendor_goes_on_where_the_one_before_ended(
    pool: RunningPool, archive: Path, vendors: list[str], text: str
) -> None:
    result = run(pool, archive, *vendors)
    assert result.returncode == 0, result.stderr
    assert read(archive)["a.html"] == text
    assert read(archive)["picture.png"] == "not sent"


def test_added_members_are_left_out_when_the_service_ignores_them(
    pool: RunningPool, archive: Path
) -> None:
    before = archive.read_bytes()
    assert run(pool, archive, "tolerant").returncode == 0
    assert archive.read_bytes() == before


def test_the_program_has_the_configured_environment_and_nothing_else_of_the_pool(
    pool: RunningPool, archive: Path
) -> None:
    result = run(pool, archive, "tells")
    assert result.returncode == 0, result.stderr
    given = dict(line.partition("=")[::2] for line in read(archive)["a.html"].splitlines())
    assert given["SECRET_OF_VENDOR"] == "configured"
    assert given["SOCKETPOOL_LEASE"] in result.stdout
    assert {n for n in given if n.startswith("SOCKETPOOL_")} == {"SOCKETPOOL_LEASE"}
    assert pool.token not in given.values()


def test_its_output_is_in_the_log_under_the_lease(pool: RunningPool, archive: Path) -> None:
    result = run(pool, archive, "tells")
    logs = "".join(path.read_text() for path in (pool.state / "logs").glob("tells-*.log"))
    told = [json.loads(line) for line in logs.splitlines() if '"told"' in line]
    assert any(entry["lease"] in result.stdout for entry in told)


@pytest.mark.parametrize("vendor", ["fails", "crashes", "paths"])
def test_of_a_failure_the_client_sees_nothing_that_was_not_said_to_it(
    pool: RunningPool, archive: Path, vendor: str
) -> None:
    result = run(pool, archive, vendor)
    assert result.returncode == 7
    assert "hunter2" not in result.stdout + result.stderr
    lease = re.search(r"in its log under lease ([a-z0-9]+)", result.stderr)
    assert lease is not None, result.stderr
    logs = [path.read_text() for path in (pool.state / "logs").glob(f"{vendor}-*.log")]
    entries = [json.loads(line) for log in logs for line in log.splitlines()]
    details = [entry for entry in entries if entry.get("lease") == lease[1]]
    assert "hunter2" in json.dumps(details)


def test_a_program_that_takes_too_long_is_ended(pool: RunningPool, archive: Path) -> None:
    result = run(pool, archive, "hangs")
    assert result.returncode == 8
    assert "longer than the service allows" in result.stderr


def test_what_a_program_leaves_running_ends_with_the_session(
    pool: RunningPool, archive: Path
) -> None:
    assert run(pool, archive, "lingers").returncode == 0
    pid = int(read(archive)["a.html"])
    eventually(lambda: ended(pid), "its end")


def test_a_class_and_an_executable_together_are_refused(new_pool: PoolMaker) -> None:
    folder, ports = new_pool.folder(), new_pool.ports()
    both = program("true", sdk={"file": "vendor.py", "class": "Vendor"})
    path = new_pool.write(folder, {"vendor": both}, ports=ports)
    result = run_tool("socketpool_server", "127.0.0.1", "0", path, "--state-dir", folder / "state")
    assert result.returncode == 2
    assert "give either file and class, or executable" in result.stderr
