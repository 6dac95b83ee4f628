"""socketpool.testing: what people test their services with."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from socketpool.errors import (
    ArchiveError,
    ConfigError,
    NoCapacity,
    NotAuthorised,
    ServiceFailed,
    TimedOut,
    UsageError,
)
from socketpool.protocol.blocks import read_line_block, send_line_block
from socketpool.protocol.session import await_event, greet
from socketpool.rsi import VendorServer
from socketpool.testing import Double, InProcessPool, Progress, process, write_double
from tests.support.pools import PROBE_CODE, WEB, command_of, connects, ended
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.client.answers import ClientLease, LeasedService

SHOUT = """
import os
import helper
from socketpool.rsi import VendorServer

class Shout(VendorServer):
    def transfer(self):
        for number, (name, path) in enumerate(self.members.items(), 1):
            if name.endswith(".html"):
                path.write_text(path.read_text().upper() + os.environ.get("SUFFIX", ""))
            self.progress(number, len(self.members), name)
        self.report(helper.WORD)
"""

MEMBERS = {"a.html": b"small", "deep/\u00fc.html": b"also", "b.bin": bytes(range(256))}


def write_service(catalogue: Path, name: str, code: str = "", **keys: Any) -> Path:
    folder = catalogue / name
    folder.mkdir(parents=True)
    service: dict[str, Any] = {"description": name}
    if code:
        service |= {"sdk": {"file": "code.py", "class": name.capitalize()}, "client": "vendor"}
        (folder / "code.py").write_text(code)
    (folder / "service.yml").write_text(yaml.safe_dump(service | keys))
    return folder


@pytest.fixture
def shout(tmp_path: Path) -> Path:
    folder = write_service(tmp_path / "services", "shout", SHOUT, environment={"SUFFIX": "!"})
    (folder / "helper.py").write_text("WORD = 'shouted'\n")
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "site.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a.html", "small")
        out.writestr("b.html", "UNCHANGED!")
        out.writestr("picture.png", "stays at home")
    return path


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def environment() -> dict[str, str]:
        return {n: v for n, v in os.environ.items() if n != "PYTEST_CURRENT_TEST"}

    temporary = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr(tempfile, "tempdir", None)
        children = set(psutil.Process().children())
        threads, open_ones = set(threading.enumerate()), descriptors()
        path, variables = list(sys.path), environment()
        yield
        monkeypatch.undo()  # what the test itself has set
        assert (sys.path, environment()) == (path, variables)
    assert set(psutil.Process().children()) <= children  # other tests' pools may be running
    assert set(threading.enumerate()) <= threads
    assert descriptors() <= open_ones
    temporary.rmdir()  # which fails unless it is empty


# -- process ---------------------------------------------------------------------------------


def test_process_runs_a_class_in_this_process() -> None:
    seen: list[tuple[int, str]] = []

    class Vendor(VendorServer):
        def transfer(self) -> None:
            seen.append((os.getpid(), threading.current_thread().name))
            self.members["a.html"].write_text("large")
            self.progress(1, 3, "a.html")
            self.report("one changed")

    processed = process(Vendor, MEMBERS)
    assert processed.changed == {"a.html": b"large"}
    assert processed.report == ["one changed"]
    assert processed.progress == [Progress(1, 3, "a.html")]
    assert seen == [(os.getpid(), threading.current_thread().name)]


def test_process_runs_a_folder_with_what_is_beside_it_and_its_environment(shout: Path) -> None:
    for _ in range(2):
        processed = process(shout, MEMBERS)
        assert processed.changed == {"a.html": b"SMALL!", "deep/\u00fc.html": b"ALSO!"}
        assert processed.report == ["shouted"]
        assert processed.progress[-1] == Progress(3, 3, "b.bin")
    (shout / "helper.py").write_text("WORD = 'said otherwise'\n")
    assert process(shout, MEMBERS).report == ["said otherwise"]
    code = shout / "code.py"
    code.write_text(code.read_text().replace("upper", "title"))
    os.utime(code, (1, 1))
    assert process(str(shout), MEMBERS).changed["a.html"] == b"Small!"


def test_process_runs_a_program(tmp_path: Path) -> None:
    script = 'tr a-z A-Z <a.html >up && mv up a.html && printf "$WORD" >>a.html'
    folder = write_service(
        tmp_path,
        "program",
        sdk={"executable": ["sh", "-c", script]},
        client="vendor",
        environment={"WORD": "from {folder}"},
    )
    assert process(folder, MEMBERS).changed == {"a.html": f"SMALLfrom {folder}".encode()}


def test_a_program_that_fails_raises_what_its_client_sees(tmp_path: Path) -> None:
    sdk = {"executable": ["sh", "-c", "echo the reason; exit 3"]}
    folder = write_service(tmp_path, "program", sdk=sdk, client="vendor")
    with pytest.raises(ServiceFailed, match="exit code 3") as caught:
        process(folder, MEMBERS)
    assert "the reason" not in caught.value.message + caught.value.hint


def test_an_exception_is_what_the_client_sees_with_the_vendors_own_as_its_cause() -> None:
    class Careless(VendorServer):
        def transfer(self) -> None:
            raise KeyError("password=hunter2")

    class Strict(VendorServer):
        def transfer(self) -> None:
            raise ServiceFailed("no fonts in it", hint="add one")

    class Leaving(VendorServer):
        def transfer(self) -> None:
            sys.exit("enough")

    with pytest.raises(ServiceFailed, match="KeyError") as caught:
        process(Careless, MEMBERS)
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None
    with pytest.raises(ServiceFailed) as caught:
        process(Strict, MEMBERS)
    assert (caught.value.message, caught.value.hint) == ("no fonts in it", "add one")
    with pytest.raises(ServiceFailed, match="SystemExit"):
        process(Leaving, MEMBERS)


def test_an_interrupt_in_the_vendor_is_the_callers() -> None:
    class Interrupted(VendorServer):
        def transfer(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process(Interrupted, MEMBERS)


def test_members_that_no_service_takes_are_refused_before_the_vendor_runs() -> None:
    class Vendor(VendorServer):
        def transfer(self) -> None:
            raise AssertionError("never reached")

    with pytest.raises(ArchiveError):
        process(Vendor, {"../out.html": b"x"})


def test_only_vendors_are_processed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no vendor"):
        process(write_service(tmp_path, "web", command=WEB["command"]), MEMBERS)
    not_one = write_service(tmp_path, "other", "class Other: pass\n")
    with pytest.raises(ConfigError, match="must be a subclass"):
        process(not_one, MEMBERS)


# -- InProcessPool -----------------------------------------------------------------------------


def test_a_round_trip_runs_through_real_services(shout: Path, archive: Path) -> None:
    with InProcessPool(shout) as pool:
        summary = pool.round_trip(archive, ["upload", "shout", "download"])
        again = pool.round_trip(str(archive), ["upload", "shout", "download"])
        assert "session done" in pool.log("shout")
    assert (summary.members, summary.sent, summary.changed) == (3, 2, 2)
    assert summary.reports == ["shout: shouted"]
    assert again.changed == 2
    with zipfile.ZipFile(archive) as file:
        assert {n: file.read(n).decode() for n in file.namelist()} == {
            "a.html": "SMALL!!",
            "b.html": "UNCHANGED!!!",
            "picture.png": "stays at home",
        }


def test_a_catalogue_is_served_whole_and_may_have_its_own_upload(shout: Path) -> None:
    write_service(shout.parent, "upload", SHOUT.replace("Shout", "Upload"))
    (shout.parent / "upload" / "helper.py").write_text("")
    with InProcessPool(shout.parent) as pool:
        kinds = pool.kinds()
    assert kinds == {"upload": "vendor", "download": "download", "shout": "vendor"}


def test_the_services_have_the_limits_and_environment_of_a_real_pool(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_TESTER", "hunter2")
    write_service(
        tmp_path / "c",
        "tells",
        sdk={"executable": ["sh", "-c", "env >a.html; sleep 1000"]},
        client="vendor",
        limits={"session_time": "1s"},
    )
    write_double(tmp_path / "c", Double.LEAKS_MEMORY)
    before = archive.read_bytes()
    with InProcessPool(tmp_path / "c") as pool:
        with pytest.raises(TimedOut, match="longer than the service allows"):
            pool.round_trip(archive, ["upload", "tells", "download"])
        with pytest.raises(ServiceFailed, match="MemoryError"):
            pool.round_trip(archive, ["upload", "leaks-memory", "download"])
    assert archive.read_bytes() == before


def ask(lease: ClientLease, service: str, line: str) -> Any:
    place = lease[service]
    with socket.create_connection((place.host, place.port), 30) as stream:
        greet(stream, lease.token)
        send_line_block(stream, line)
        return await_event(stream, "done")["detail"]["answer"]


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    return write_service(
        tmp_path, "probe", PROBE_CODE, sdk={"file": "code.py", "class": "Probe"}, client=None
    )


def test_a_lease_is_real_and_ends(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_TESTER", "hunter2")
    with InProcessPool(probe) as pool:
        with pool.lease("probe", "upload") as lease:
            assert "mine" in ask(lease, "probe", '{"do": "write", "name": "mine"}')
            assert (pool.workspace(lease) / "mine").exists()
            assert "SECRET_OF_TESTER" not in ask(lease, "probe", '{"do": "environment"}')
            assert pool.renew(lease.id) > 0
            with pytest.raises(NoCapacity):
                pool.acquire(["probe"])
        with pytest.raises(NotAuthorised):
            ask(lease, "probe", '{"do": "echo", "text": "x"}')
        with pytest.raises(NotAuthorised):
            pool.release(lease.id)
        with pool.lease("probe") as another:
            assert "mine" not in ask(another, "probe", '{"do": "write", "name": "other"}')
        with pytest.raises(UsageError, match="no service is named 'nothing'"):
            pool.acquire(["nothing"])


def test_who_waits_gets_what_another_thread_gives_back(probe: Path) -> None:
    """And the instance outlives the threads that used it."""
    answers: list[str] = []
    with InProcessPool(probe) as pool:

        def use(text: str) -> None:
            with pool.lease("probe", wait=60) as lease:
                answers.append(ask(lease, "probe", f'{{"do": "echo", "text": "{text}"}}'))

        threads = [threading.Thread(target=use, args=(str(n),)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        use("after")
    assert sorted(answers) == ["0", "1", "2", "3", "4", "5", "after"]


def test_a_plain_program_is_leased_too_and_starts_anew_for_each_lease(tmp_path: Path) -> None:
    web = write_service(tmp_path, "web", command=WEB["command"])
    with InProcessPool(web) as pool:
        pids: list[int] = []

        def use() -> None:
            with pool.lease("web") as lease:
                place = lease["web"]
                with urllib.request.urlopen(f"http://{place.host}:{place.port}/") as answer:
                    assert answer.status == 200
                pids.extend(
                    p.pid for p in psutil.Process().children() if "http.server" in command_of(p)
                )

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        use()
        assert len(set(pids)) == 2


def test_nothing_is_left_when_the_test_raises_in_the_middle_of_a_session(probe: Path) -> None:
    left: list[int] = []
    places: list[LeasedService] = []

    def test() -> None:
        with InProcessPool(probe) as pool, pool.lease("probe") as lease:
            left.append(ask(lease, "probe", '{"do": "spawn"}'))
            place = lease["probe"]
            places.append(place)
            with socket.create_connection((place.host, place.port), 30) as stream:
                greet(stream, lease.token)
                send_line_block(stream, '{"do": "sleep", "seconds": 1000}')
                assert "sleeping" in read_line_block(stream)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        test()
    assert not connects(places[0].host, places[0].port)
    eventually(lambda: ended(left[0]), "the end of what a session started")


@pytest.mark.parametrize(
    ("double", "error", "said"),
    [
        (Double.CRASHES_AT_ONCE, ServiceFailed, r"exit code 3(.|\n)*crashing as asked"),
        (Double.NEVER_READY, TimedOut, "not ready within 1 s"),
    ],
)
def test_a_service_that_does_not_start_is_an_error_that_leaves_nothing(
    tmp_path: Path, double: Double, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said), InProcessPool(write_double(tmp_path, double)):
        raise AssertionError("never reached")


def test_a_service_that_ends_later_is_an_error_at_once(tmp_path: Path, archive: Path) -> None:
    """Not a client that tries for a minute to reach what nobody starts again."""
    folder = write_double(tmp_path / "c", Double.FLAPS, name="brief", description="Ends soon.")
    with InProcessPool(folder) as pool, pool.lease("brief") as lease:

        def renewal_fails() -> bool:
            try:
                pool.renew(lease.id)
            except ServiceFailed as error:
                return "brief ended by itself (exit code -14)" in error.message
            return False

        eventually(renewal_fails, "its end")
        pool.release(lease.id)
        with pytest.raises(ServiceFailed, match="ended by itself"):
            pool.round_trip(archive, ["upload", "brief", "download"])


def test_a_vendor_that_kills_its_instance_fails_the_run(tmp_path: Path, archive: Path) -> None:
    code = SHOUT.replace("import helper", "import signal").replace(
        "self.report(helper.WORD)", "os.kill(os.getppid(), signal.SIGKILL); signal.pause()"
    )
    before = archive.read_bytes()
    with (
        InProcessPool(write_service(tmp_path, "shout", code)) as pool,
        pytest.raises(ServiceFailed, match="exit code -9"),
    ):
        pool.round_trip(archive, ["upload", "shout", "download"])
    assert archive.read_bytes() == before


def test_a_pool_may_be_entered_again(shout: Path, archive: Path) -> None:
    pool = InProcessPool(shout)
    for _ in range(2):
        with pool:
            assert pool.round_trip(archive, ["upload", "shout", "download"]).changed == 2


def test_a_double_is_written_once_and_as_asked(tmp_path: Path) -> None:
    folder = write_double(tmp_path, Double.HANGS, name="idle", warm=0)
    assert folder == tmp_path / "idle"
    assert yaml.safe_load((folder / "service.yml").read_text())["warm"] == 0
    with pytest.raises(FileExistsError):
        write_double(tmp_path, Double.HANGS, name="idle")


def test_one_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path) -> None:
    with InProcessPool(write_double(tmp_path, Double.IGNORES_SIGTERM)) as pool:
        with pool.lease("ignores-sigterm"):
            pass
        with pool.lease("ignores-sigterm") as lease:
            place = lease["ignores-sigterm"]
            assert connects(place.host, place.port)
    assert not connects(place.host, place.port)


def test_the_services_end_with_a_test_run_that_is_killed(probe: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from socketpool.testing import InProcessPool\n"
        "with InProcessPool(sys.argv[1]) as pool, pool.lease('probe') as lease:\n"
        "    print(lease['probe'].port, pool.workspace(lease), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, probe], capture_output=True, text=True, check=False
    )
    port, workspace = result.stdout.split()
    eventually(lambda: not connects("127.0.0.1", int(port)), "the end of its services")
    # Its files are what nobody is left to remove.
    shutil.rmtree(Path(workspace).parents[2])


def test_places_that_are_none_are_refused(tmp_path: Path, shout: Path) -> None:
    with (
        pytest.raises(ConfigError, match="neither a service nor a catalogue"),
        InProcessPool(tmp_path / "nowhere"),
    ):
        pass
    with pytest.raises(ConfigError, match="given twice"), InProcessPool(shout, shout.parent):
        pass


def test_it_needs_no_test_runner() -> None:
    code = "import sys, socketpool.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
