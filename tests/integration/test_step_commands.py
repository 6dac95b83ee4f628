"""The single steps: clients and development servers, each command by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from socketpool.client.dial import dial_tcp
from socketpool.client.single import SingleStep
from tests.support.pools import TOOLS, clean_environment, connects, ended, kill, run_tool
from tests.support.stepservers import serving
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.stepservers import StepServer

SITE = Path(__file__).parents[1] / "data" / "webflow-site.zip"
SLOW = """
import time
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        self.progress(1, 2, "asleep")
        time.sleep(600)
"""
BROKEN = """
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        print("here I am")
        raise ZeroDivisionError
"""


def client(
    step: str, server: StepServer, archive: Path, *options: object, token: str = ""
) -> subprocess.CompletedProcess[str]:
    return run_tool(
        f"{step}_client",
        *("127.0.0.1", server.port, archive.name, *options),
        *("--lease", token or server.token_file),
        cwd=archive.parent,
    )


def vendor_folder(tmp_path: Path, code: str) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    service = {"description": "x", "sdk": {"file": "v.py", "class": "Vendor"}, "client": "vendor"}
    (folder / "service.yml").write_text(yaml.safe_dump(service))
    (folder / "v.py").write_text(code)
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return Path(shutil.copy(SITE, tmp_path / "home" / "site.zip"))


@pytest.fixture
def arrived(tmp_path: Path) -> Path:
    """What an upload leaves on the server."""
    target = tmp_path / "arrived.zip"
    done = run_tool("socketpool", "archive", "implode", SITE, "-o", target)
    assert done.returncode == 0, done.stderr
    return target


def test_ctrl_c_in_the_middle_of_a_session_leaves_nothing(arrived: Path, tmp_path: Path) -> None:
    folder = vendor_folder(tmp_path, SLOW)
    with serving(tmp_path / "v", "vendor_server", arrived, "--service", folder) as server:
        waiting = subprocess.Popen(
            [
                *(TOOLS / "vendor_client", "127.0.0.1", str(server.port), arrived, "--json"),
                *("--lease", server.token_file),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=clean_environment(tmp_path),
        )
        with waiting:
            assert waiting.stdout is not None
            while "asleep" not in (line := waiting.stdout.readline()):
                assert line, "the client ended"
            family = server.family()
            assert len(family) >= 3
            assert server.stop(signal.SIGINT) == 0
            waiting.kill()
        assert all(ended(process.pid) for process in family)
        assert not connects("127.0.0.1", server.port)
        assert list((server.folder / "tmp").iterdir()) == []
        assert "stopped" in server.errors


def test_the_instance_ends_with_its_command_however_that_ends(
    arrived: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "d", "downloader_server", arrived) as server:
        family = server.family()
        kill(server.process.pid)
        eventually(lambda: all(ended(p.pid) for p in family), "the instance's end")


def test_a_wrong_or_missing_token_is_5_and_nobody_there_is_3(archive: Path, tmp_path: Path) -> None:
    stored = tmp_path / "arrived.zip"
    (tmp_path / "wrong").write_text("WyJkZXZlbG9wbWVudCIsMV0.wrong")
    with serving(tmp_path / "u", "uploader_server", stored) as server:
        wrong = client("uploader", server, archive, token=str(tmp_path / "wrong"))
        assert (wrong.returncode, wrong.stdout) == (5, "")
        assert "not valid" in wrong.stderr
        missing = run_tool("uploader_client", "127.0.0.1", server.port, archive)
        assert missing.returncode == 5
        assert "--lease" in missing.stderr
    nobody = run_tool(
        *("uploader_client", "127.0.0.1", server.port, archive),
        *("--lease", tmp_path / "wrong", "--json"),
    )
    assert nobody.returncode == 3
    assert "nothing listens" in nobody.stderr
    last = json.loads(nobody.stdout.splitlines()[-1])
    assert (last["event"], last["code"], last["exit_code"]) == ("error", "pool-unreachable", 3)
    assert not stored.exists()
    assert [p.name for p in archive.parent.iterdir()] == ["site.zip"], "no manifest of nothing"


def test_the_token_of_one_server_is_good_for_no_other(archive: Path, tmp_path: Path) -> None:
    stored = tmp_path / "arrived.zip"
    with (
        serving(tmp_path / "u", "uploader_server", stored) as one,
        serving(tmp_path / "d", "downloader_server", stored) as other,
    ):
        assert client("uploader", one, archive, token=other.token_file).returncode == 5


def test_the_token_is_in_a_private_file_alone(archive: Path, tmp_path: Path) -> None:
    stored = tmp_path / "arrived.zip"
    with serving(tmp_path / "u", "uploader_server", stored) as server:
        token_file = Path(server.token_file)
        assert token_file.stat().st_mode & 0o777 == 0o600
        token = token_file.read_text().strip()
        assert client("uploader", server, archive).returncode == 0
        for process in server.family():
            assert token not in " ".join(process.cmdline())
            assert token not in " ".join(process.environ().values())
    assert token not in server.output + server.errors
    assert not token_file.exists()


def test_the_token_is_taken_from_the_environment_or_standard_input(
    archive: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "u", "uploader_server", tmp_path / "arrived.zip") as server:
        token = Path(server.token_file).read_text()
        where = ("uploader_client", "127.0.0.1", server.port, archive)
        piped = run_tool(*where, "--lease", "-", input=token)
        assert piped.returncode == 0, piped.stderr
        env = clean_environment(tmp_path) | {"SOCKETPOOL_LEASE_TOKEN": token.strip()}
        assert run_tool(*where, env=env).returncode == 0


def test_a_file_of_somebody_is_never_replaced_unasked(archive: Path, tmp_path: Path) -> None:
    """The client's own archive, say, if both run in one folder."""
    original = archive.read_bytes()
    refused = run_tool("uploader_server", "127.0.0.1", 0, archive)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--replace" in refused.stderr
    stored = tmp_path / "arrived.zip"
    with serving(tmp_path / "u", "uploader_server", stored) as server:
        assert client("uploader", server, archive).returncode == 0
        assert client("uploader", server, archive).returncode == 0, "its own may be replaced"
        stored.unlink()
        stored.write_bytes(b"precious")
        late = client("uploader", server, archive)
        assert late.returncode == 7
        assert "not from this server" in late.stderr
        assert stored.read_bytes() == b"precious"
    with serving(tmp_path / "again", "uploader_server", stored, "--replace") as server:
        assert client("uploader", server, archive).returncode == 0
    assert zipfile.is_zipfile(stored)
    assert archive.read_bytes() == original


def test_a_vendor_s_traceback_and_prints_are_shown_to_its_developer_alone(
    arrived: Path, tmp_path: Path
) -> None:
    folder = vendor_folder(tmp_path, BROKEN)
    with serving(tmp_path / "v", "vendor_server", arrived, "--service", folder) as server:
        failed = client("vendor", server, arrived)
        assert failed.returncode == 7
        assert "ZeroDivisionError" in failed.stderr
        assert "Traceback" not in failed.stderr
        eventually(lambda: "raise ZeroDivisionError" in server.errors, "the traceback")
        assert "here I am" in server.errors
    assert not (tmp_path / "arrived.processed.zip").exists()


def test_a_vendor_in_any_language_is_served_too(arrived: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    program = ["sh", "-c", "for f in *.html; do echo x >> $f; done"]
    service = {"description": "x", "sdk": {"executable": program}, "client": "vendor"}
    (folder / "service.yml").write_text(yaml.safe_dump(service))
    with serving(tmp_path / "v", "vendor_server", arrived, "--service", folder) as server:
        done = client("vendor", server, arrived, "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with zipfile.ZipFile(tmp_path / "arrived.processed.zip") as result:
        assert {Path(name).suffix for name in result.namelist()} == {".html"}


def test_a_file_that_is_not_there_yet_is_told_and_may_come_later(
    arrived: Path, archive: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late.zip"
    with (
        serving(tmp_path / "u", "uploader_server", tmp_path / "stored.zip") as up,
        serving(tmp_path / "v", "vendor_server", late) as vendor,
        serving(tmp_path / "d", "downloader_server", late) as down,
    ):
        assert client("uploader", up, archive).returncode == 0
        for step, server in (("vendor", vendor), ("downloader", down)):
            refused = client(step, server, archive)
            assert refused.returncode == 7
            assert f"there is no file {late}" in refused.stderr
        arrived.rename(late)
        for step, server in (("vendor", vendor), ("downloader", down)):
            assert client(step, server, archive).returncode == 0


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("vendor_server", ["a.zip", "--service", "upload"], "client portion is upload, not vendor"),
        ("uploader_server", ["a.zip", "--service", "web"], "client portion is none, not upload"),
        ("uploader_server", ["no/such/folder/a.zip"], "is not a folder"),
        ("uploader_server", ["a.zip", "--service", "empty"], "service.yml"),
        ("downloader_server", [], "FILENAME"),
        ("uploader_client", ["gone.zip"], "does not exist"),
    ],
)
def test_wrong_usage_is_2_and_told_in_words(
    command: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    catalogue = Path(__file__).parents[2] / "services"
    given = [catalogue / a if a in {"upload", "web"} else a for a in arguments]
    port = 1 if command.endswith("client") else 0
    done = run_tool(command, "127.0.0.1", port, *given, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("uploader_client", ["127.0.0.1", "1", "gone.zip", "--json"], "does not exist"),
        ("vendor_client", ["127.0.0.1", "seven", "a.zip", "--json"], "'seven'"),
        ("downloader_client", ["--json"], "'IP'"),
        ("socketpool_client", ["127.0.0.1", "1", "a.zip", "--json"], "SERVICES"),
        ("socketpool_client", ["127.0.0.1", "1", "a.zip", "upload", "--jsno", "--json"], "--jsno"),
        ("socketpool_client", ["127.0.0.1", "1", "a.zip", "upload", "--json", "-q"], "exclude"),
    ],
)
def test_a_program_is_told_of_wrong_usage_as_an_event(
    command: str, arguments: list[str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "a.zip").touch()
    done = run_tool(command, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    (told,) = map(json.loads, done.stdout.splitlines())
    assert (told["event"], told["code"], told["exit_code"]) == ("error", "usage", 2)
    assert said in told["message"]
    assert told["message"] in done.stderr


def test_a_service_that_can_not_be_imported_ends_the_server_with_its_traceback(
    arrived: Path, tmp_path: Path
) -> None:
    folder = vendor_folder(tmp_path, "import no_such_module\n\nclass Vendor:\n    pass\n")
    done = run_tool("vendor_server", "127.0.0.1", 0, arrived, "--service", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "No module named 'no_such_module'" in done.stderr


def test_an_upload_that_can_not_be_noted_sends_nothing(archive: Path, tmp_path: Path) -> None:
    (archive.parent / ".site.zip.manifest.jsonl.part").mkdir()
    with serving(tmp_path / "u", "uploader_server", tmp_path / "arrived.zip") as server:
        refused = client("uploader", server, archive)
    assert refused.returncode == 6
    assert "nothing was sent" in refused.stderr
    assert not (tmp_path / "arrived.zip").exists()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_tool("uploader_server", "127.0.0.1", port, tmp_path / "a.zip")
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
    assert "ready" not in done.stdout


def test_a_state_directory_is_for_one_server_and_each_run_has_a_new_token(
    archive: Path, tmp_path: Path
) -> None:
    stored, state = tmp_path / "arrived.zip", tmp_path / "state"
    tokens = []
    for name in ("one", "two"):
        options = (stored, "--state-dir", state, "--replace")
        with serving(tmp_path / name, "uploader_server", *options) as server:
            assert server.token_file == str(state / "lease.token")
            tokens.append((state / "lease.token").read_text())
            second = run_tool("uploader_server", "127.0.0.1", 0, *options)
            assert second.returncode == 2
            assert "another server" in second.stderr
            assert client("uploader", server, archive).returncode == 0
        assert list((state / "workspaces").iterdir()) == []
    assert tokens[0] != tokens[1]


def test_a_download_without_or_against_the_manifest_changes_nothing(
    archive: Path, arrived: Path, tmp_path: Path
) -> None:
    with (
        serving(tmp_path / "u", "uploader_server", tmp_path / "stored.zip") as up,
        serving(tmp_path / "d", "downloader_server", arrived) as down,
    ):
        without = client("downloader", down, archive)
        assert without.returncode == 6
        assert "uploader_client writes it" in without.stderr
        assert client("uploader", up, archive).returncode == 0
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("new.html", "added after the upload")
        changed = archive.read_bytes()
        late = client("downloader", down, archive)
        assert late.returncode == 6
        assert "changed since" in late.stderr
        assert archive.read_bytes() == changed
        assert (archive.parent / "site.zip.manifest.jsonl").exists()


def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    """The instance sends the very same file again, so the client's part is still good."""
    home, content = tmp_path / "home", os.urandom(24 << 20)
    home.mkdir()
    for name in ("a.zip", "changed.zip"):
        with zipfile.ZipFile(home / name, "w") as out:
            out.writestr("data.js", content if name == "a.zip" else content[::-1])
    canonical = tmp_path / "changed.zip"
    assert not run_tool(
        *("socketpool", "archive", "implode", home / "changed.zip", "-o", canonical)
    ).returncode
    got: list[int] = []

    class Cut(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            data = super().recv(size, flags)
            got[-1] += len(data)
            return b"" if len(got) == 1 and got[0] > 4 << 20 else data

    def dial(host: str, port: int) -> socket.socket:
        got.append(0)
        return Cut(fileno=dial_tcp(host, port).detach())

    with (
        serving(tmp_path / "u", "uploader_server", tmp_path / "stored.zip") as up,
        serving(tmp_path / "d", "downloader_server", canonical) as down,
    ):
        assert client("uploader", up, home / "a.zip").returncode == 0
        token = Path(down.token_file).read_text().strip()
        step = SingleStep("127.0.0.1", down.port, token, home / "a.zip", dial=dial)
        assert step.download().changed == 1
    assert len(got) == 2
    assert sum(got) < len(content) * 1.1
    with zipfile.ZipFile(home / "a.zip") as file:
        assert file.read("data.js") == content[::-1]


def test_nothing_of_a_pool_is_needed(arrived: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "d", "downloader_server", arrived) as server:
        names: list[Any] = [p.name() for p in server.family()]
        assert "supervisord" not in names
        assert len(psutil.Process(server.process.pid).children(recursive=True)) == 1
