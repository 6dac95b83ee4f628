"""Vendor code that crashes, or can't be interrupted: the client is told, and others aren't hurt."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.errors import NotAuthorised, ServiceCrashed
from socketpool.protocol.frames import Kind, read_exactly, read_header, send_header
from socketpool.protocol.session import await_event
from socketpool.protocol.transfer import TRANSFER_ID_BYTES
from tests.support.pools import PROBE, PoolMaker, ended, place, run_tool, session, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.pools import RunningPool

CRASHES = """
import ctypes, os, signal, subprocess
from pathlib import Path
from socketpool.rsi import VendorServer

class Crashes(VendorServer):
    def transfer(self):
        with (Path(__file__).parent / "starts").open("a") as starts:
            starts.write("x")
        for number, (name, path) in enumerate(sorted(self.members.items())):
            self.progress(number, len(self.members), name)
            if "poison" in path.read_text():
                {how}
"""

HOW = {
    "segfault": "ctypes.string_at(0)",
    "exits": "os._exit(0)",
    "exitcode": "os._exit(9)",
    "sigterm": "os.kill(os.getpid(), signal.SIGTERM)",
    "group": 'subprocess.run(["sh", "-c", "kill 0"])',
}

RAISES = {
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "SystemExit": "raise SystemExit(0)",
    "GeneratorExit": "raise GeneratorExit",
    "MemoryError": "bytearray(1 << 62)",
    "RecursionError": "raise RecursionError",
}

STUCK = """
import ctypes, hashlib, os, re
from socketpool.rsi import ServiceServer

class Stuck(ServiceServer):
    def transfer(self):
        self.progress(0, 1, str(os.getpid()))
        {how}
"""

MIDWAY = """
import os
from pathlib import Path
from socketpool.protocol import blocks
from socketpool.protocol.filesource import OpenFile
from socketpool.rsi import ServiceServer

def stop(done, total):
    if 2 * done > total:
        {how}

class Midway(ServiceServer):
    def transfer(self):
        with (Path(__file__).parent / "big").open("w+b") as file:
            file.truncate(16 << 20)
            source = OpenFile(file.fileno(), 16 << 20)
            blocks.send_file_block(self.stream, source, progress=stop)
"""

MIDWAY_HOW = {
    "midexits": "os._exit(9)",
    "midraises": "raise ValueError",
    "midsleeps": "__import__('time').sleep(60)",
}

REFUSED = """
import os
from pathlib import Path
from socketpool.errors import FileRefused
from socketpool.rsi import ServiceServer

class Refused(ServiceServer):
    def transfer(self):
        try:
            self.send_file_block(Path(__file__))
        except FileRefused:
            os._exit(9)
"""

DONE_BEFORE = """
import os
from pathlib import Path
from socketpool.rsi import VendorServer

class DoneBefore(VendorServer):
    def transfer(self):
        with (Path(__file__).parent / "starts").open("a") as starts:
            starts.write("x")
        for path in self.members.values():
            path.write_text("processed")

    def outcome(self):
        os._exit(9)
"""

STAYS = {
    "regex": 're.match(r"(a+)+$", "a" * 64 + "b")',
    "gil": "ctypes.PyDLL(None).sleep(600)",
    "native": 'hashlib.pbkdf2_hmac("sha512", b"x", b"y", 10**9)',
    "ignores": "exec('while True:\\n try:\\n  while True: pass\\n except BaseException: pass')",
}


def sdk(name: str, cls: str, code: str, **more: Any) -> dict[str, Any]:
    found = {"file": f"{name}.py", "class": cls}
    return {"description": name, "sdk": found, "max": 1, "code": code} | more


@pytest.fixture(scope="module")
def pool() -> Iterator[RunningPool]:
    services = {"upload": shipped("upload"), "download": shipped("download")}
    for name, how in (HOW | RAISES).items():
        code = CRASHES.replace("{how}", how)
        services[name.lower()] = sdk(name.lower(), "Crashes", code, client="vendor")
    for name, how in STAYS.items():
        services[name] = sdk(name, "Stuck", STUCK.replace("{how}", how))
    for name, how in MIDWAY_HOW.items():
        code = MIDWAY.replace("{how}", how)
        services[name] = sdk(name, "Midway", code, limits={"session_time": "2s"})
    services["refused"] = sdk("refused", "Refused", REFUSED)
    services["donebefore"] = sdk("donebefore", "DoneBefore", DONE_BEFORE, client="vendor")
    services["late"] = sdk(
        "late", "Stuck", STUCK.replace("{how}", STAYS["gil"]), limits={"session_time": "1s"}
    )
    services["probe"] = PROBE | {"warm": 1, "max": 1}
    with PoolMaker() as maker:
        yield maker.start(services)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name in ("a", "b", "c"):
            out.writestr(f"{name}.html", "poison" if name == "b" else "fine")
    return path


def run(pool: RunningPool, archive: Path, name: str) -> subprocess.CompletedProcess[str]:
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive, "upload", name, "download"),
        *("--state-dir", pool.state),
    )


@pytest.mark.parametrize(
    ("name", "ended_by"),
    [
        ("segfault", "signal 11, SIGSEGV"),
        ("exits", "exit code 0"),
        ("exitcode", "exit code 9"),
        ("sigterm", "signal 15, SIGTERM"),
        ("group", "signal 15, SIGTERM"),
    ],
)
def test_a_crash_is_told_with_its_member_and_tried_twice_more(
    pool: RunningPool, archive: Path, name: str, ended_by: str
) -> None:
    (instance,) = pool.await_idle(name, 1)
    before = archive.read_bytes()
    result = run(pool, archive, name)
    assert result.returncode == 7
    assert f"crashed ({ended_by}) while it worked on 'b.html'" in result.stderr
    assert (pool.folder / "services" / name / "starts").read_text() == "xxx"
    assert pool.instance(instance["port"])["pid"] == instance["pid"]
    assert archive.read_bytes() == before
    log = pool.log(f"{name}-{instance['port']}")
    assert "session ended badly" in log
    assert "b.html" in log


@pytest.mark.parametrize("name", RAISES)
def test_whatever_vendor_code_raises_is_told_at_once(
    pool: RunningPool, archive: Path, name: str
) -> None:
    result = run(pool, archive, name.lower())
    assert result.returncode == 7
    assert f"failed unexpectedly ({name})" in result.stderr
    assert (pool.folder / "services" / name.lower() / "starts").read_text() == "x"


@pytest.mark.parametrize("name", STAYS)
def test_a_session_ends_with_its_lease_whatever_it_does(pool: RunningPool, name: str) -> None:
    lease = pool.lease(name)
    with session(lease, name) as stream:
        seen: list[dict[str, Any]] = []

        def end_the_lease(event: dict[str, Any]) -> None:
            seen.append(event)
            pool.release(lease)

        with pytest.raises(NotAuthorised, match="lease ended"):
            await_event(stream, "done", end_the_lease)
    eventually(lambda: ended(int(seen[0]["text"])), "the session's end", 2)
    with pool.leased(name) as following, session(following, name):
        assert place(following, name)["port"] == place(lease, name)["port"]


def test_a_session_beyond_its_time_is_ended_and_told_so_whatever_it_does(
    pool: RunningPool,
) -> None:
    with pool.leased("late") as lease, session(lease, "late") as stream:
        message: list[str] = []
        with pytest.raises(Exception, match="longer than the service allows") as caught:
            await_event(stream, "done", lambda event: message.append(event["text"]))
        assert caught.value.exit_code == 8  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MIDWAY_HOW)
def test_a_failure_in_the_middle_of_a_file_adds_nothing_to_the_file(
    pool: RunningPool, name: str
) -> None:
    """A verdict would be stored as a part of the file, which spoils the next attempt."""
    received = bytearray()
    with pool.leased(name) as lease, session(lease, name) as stream:
        stream.settimeout(30)
        kind, size = read_header(stream)
        assert kind is Kind.FILE
        read_exactly(stream, TRANSFER_ID_BYTES)
        send_header(stream, Kind.GO, 0)
        while data := stream.recv(1 << 20):
            received += data
    assert 0 < len(received) < size
    assert received.count(0) == len(received)


def test_a_crash_after_a_file_that_the_client_refused_is_told(pool: RunningPool) -> None:
    with pool.leased("refused") as lease, session(lease, "refused") as stream:
        read_header(stream)
        read_exactly(stream, TRANSFER_ID_BYTES)
        send_header(stream, Kind.REFUSAL, 2, b"no")
        with pytest.raises(ServiceCrashed, match="exit code 9"):
            await_event(stream, "done")


def test_work_that_was_finished_before_the_crash_is_not_done_again(
    pool: RunningPool, archive: Path
) -> None:
    result = run(pool, archive, "donebefore")
    assert result.returncode == 0, result.stderr
    assert "crashed (exit code 9); trying again" in result.stderr
    assert (pool.folder / "services" / "donebefore" / "starts").read_text() == "x"
    with zipfile.ZipFile(archive) as file:
        assert {file.read(name) for name in file.namelist()} == {b"processed"}
