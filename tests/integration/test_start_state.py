"""Every program that the product starts has default signals, none blocked, and no descriptors."""

from __future__ import annotations

import json
import os
import signal
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.protocol.blocks import read_line_block, send_line_block
from socketpool.protocol.session import await_event
from tests.support.pools import PROBE, PoolMaker, belongings, place, run_tool, session, shipped
from tests.support.startstate import (
    FRESH,
    WRITE_REPORT,
    odd_signals,
    read_report,
    reporter,
    signals_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

PLAIN = f'({WRITE_REPORT}); shift; exec "$@"'

STARTS_PROGRAMS = """
import json, os, shlex, signal, subprocess, sys
from pathlib import Path
from socketpool.rsi import VendorServer

HERE = Path(__file__).parent

class Starts(VendorServer):
    def transfer(self):
        script = (HERE / "report.sh").read_text()
        def argv(name):
            return ["sh", "-c", script, "sh", str(HERE / name)]
        subprocess.run(argv("subprocess"), close_fds=False, check=True)
        os.system(shlex.join(argv("system")))
        os.waitpid(os.posix_spawnp("sh", argv("spawn"), os.environ), 0)
        (HERE / "session").write_text(json.dumps({
            "status": Path("/proc/self/status").read_text(),
            "default": [signal.getsignal(n) == signal.SIG_DFL
                        for n in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)],
            "sockets": [link for link in map(os.readlink, open_files())
                        if link.startswith(("socket", "pipe", "anon_inode"))],
        }))

def open_files():
    return [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")
            if int(n) > 2 and os.path.lexists(f"/proc/self/fd/{n}")]
"""

ENDS_ITS_HELPER = """
import subprocess
from socketpool.rsi import VendorServer

class Ends(VendorServer):
    def transfer(self):
        helper = subprocess.Popen(["sleep", "600"])
        for path in self.members.values():
            path.write_text(path.read_text().upper())
        helper.terminate()
        helper.wait()
"""


def vendor(name: str, code: str) -> dict[str, Any]:
    sdk = {"file": f"{name}.py", "class": name.capitalize()}
    return {"description": name, "sdk": sdk, "client": "vendor", "code": code, "max": 1}


def program(script: str) -> dict[str, Any]:
    return {"description": "x", "sdk": {"executable": ["sh", "-c", script]}, "client": "vendor"}


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    web = ("{python}", "-m", "http.server", "{port}", "--bind", "{host}")
    services: dict[str, dict[str, Any]] = {
        "plain": {
            "description": "writes its report and serves",
            "command": ["sh", "-c", PLAIN, "sh", "{folder}/plain", *web],
            "readiness": {"kind": "exec", "exec": reporter("{folder}/probe")},
            "max": 1,
        },
        "starts": vendor("starts", STARTS_PROGRAMS),
        "ends": vendor("ends", ENDS_ITS_HELPER),
        "probe": PROBE,
        "program": program("true"),
        "helper": program("sleep 600 & H=$!; sed -i s/small/BIG/ a.html; kill $H; wait $H; true"),
        "upload": shipped("upload"),
        "download": shipped("download"),
    }
    services["program"]["sdk"]["executable"] = reporter("{folder}/program")
    with PoolMaker() as maker:
        folder, ports = maker.folder(), maker.ports()
        path = maker.write(folder, services, ports=ports)
        (folder / "services" / "starts" / "report.sh").write_text(WRITE_REPORT)
        with odd_signals():
            pool = maker.launch(folder, path, ports)
        yield pool


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "small\n")
    return path


def run(pool: RunningPool, archive: Path, name: str) -> Any:
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive, "upload", name, "download"),
        *("--state-dir", pool.state),
    )


def text(archive: Path) -> str:
    with zipfile.ZipFile(archive) as file:
        return file.read("a.html").decode()


@pytest.mark.parametrize("how", ["plain", "probe"])
def test_a_plain_program_and_its_probe(pool: RunningPool, how: str) -> None:
    assert read_report(pool.folder / "services" / "plain" / how) == FRESH


def test_a_vendor_in_any_language(pool: RunningPool, archive: Path) -> None:
    result = run(pool, archive, "program")
    assert result.returncode == 0, result.stderr
    assert read_report(pool.folder / "services" / "program" / "program") == FRESH


def test_whatever_vendor_code_starts_and_the_session_that_it_runs_in(
    pool: RunningPool, archive: Path
) -> None:
    result = run(pool, archive, "starts")
    assert result.returncode == 0, result.stderr
    folder = pool.folder / "services" / "starts"
    assert {
        how: read_report(folder / how) for how in ("subprocess", "system", "spawn")
    } == dict.fromkeys(("subprocess", "system", "spawn"), FRESH)
    process = json.loads((folder / "session").read_text())
    assert process["default"] == [True] * 3
    assert "SigIgn:\t0000000000000000" in process["status"]
    assert "SigBlk:\t0000000000000000" in process["status"]
    assert len(process["sockets"]) == 1, "the connection, and nothing of the instance's"


def test_supervisord_and_what_runs_under_it(pool: RunningPool) -> None:
    """As far as Python lets them: it ignores two signals in every process of its own."""
    for process in belongings(pool.state):
        if process.pid != pool.process.pid:
            state = signals_of(process.pid)
            assert state["blocked"] == set(), process.cmdline()
            assert state["ignored"] <= {signal.SIGPIPE, signal.SIGXFSZ}, process.cmdline()


def test_run(pool: RunningPool, tmp_path: Path) -> None:
    with odd_signals():
        target = tmp_path / "run"
        done = run_tool(
            *("socketpool", "run", "--state-dir", pool.state, "plain", "--", *reporter(target))
        )
    assert done.returncode == 0, done.stderr
    assert read_report(target) == FRESH


def test_what_a_hook_starts(archive: Path, tmp_path: Path) -> None:
    hook, target = tmp_path / "hook.py", tmp_path / "hooked"
    hook.write_text(
        f"import os, shlex\nos.system(shlex.join({reporter(target)!r}))\n"
        "def is_implodable(member): return False\n"
    )
    done = run_tool("socketpool", "plan", archive, "--hook", hook)
    assert done.returncode == 0, done.stderr
    assert read_report(target) == FRESH


@pytest.mark.parametrize(("name", "result"), [("ends", "SMALL\n"), ("helper", "BIG\n")])
def test_a_vendor_may_end_its_helper(
    pool: RunningPool, archive: Path, name: str, result: str
) -> None:
    done = run(pool, archive, name)
    assert done.returncode == 0, done.stderr
    assert text(archive) == result


def test_a_session_may_finish_while_its_instance_is_asked_to_end(pool: RunningPool) -> None:
    with pool.leased("probe") as lease, session(lease, "probe") as stream:
        send_line_block(stream, '{"do": "sleep", "seconds": 0.5}')
        assert "sleeping" in read_line_block(stream)
        os.killpg(pool.instance(place(lease, "probe")["port"])["pid"], signal.SIGTERM)
        assert await_event(stream, "done")
