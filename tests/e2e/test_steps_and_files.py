"""The main job in other ways: step by step, and on several files in one run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.pools import PoolMaker, run_tool, shipped
from tests.support.stepservers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

DATA = Path(__file__).parent.parent / "data"
TRIO = ("upload", "vendor", "download")
SITE, APP = "webflow-site.zip", "angular-src.zip"


@pytest.fixture(scope="module")
def maker() -> Iterator[PoolMaker]:
    with PoolMaker() as made:
        yield made


@pytest.fixture(scope="module")
def pool(maker: PoolMaker) -> RunningPool:
    folder, ports = maker.folder(), maker.ports()
    return maker.launch(folder, str(ports), ports)


@pytest.fixture(scope="module")
def processed(pool: RunningPool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the archives are after the main job, each on a lease of its own."""
    folder = tmp_path_factory.mktemp("processed")
    for name in (SITE, APP):
        shutil.copy(DATA / name, folder)
        assert client(pool, folder, name, *TRIO).returncode == 0
    return {name: (folder / name).read_bytes() for name in (SITE, APP)}


def client(pool: RunningPool, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, *arguments, "--state-dir", pool.state),
        cwd=folder,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name in (SITE, APP):
        shutil.copy(DATA / name, folder)
    return folder


def untouched(home: Path, name: str) -> bool:
    return (home / name).read_bytes() == (DATA / name).read_bytes()


def leases_granted(pool: RunningPool) -> int:
    return pool.log("pool-server").count("lease granted")


def events(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_three_commands_against_three_servers_do_the_whole_job(
    home: Path, tmp_path: Path, processed: dict[str, bytes]
) -> None:
    arrived = tmp_path / "arrived.zip"
    with (
        serving(tmp_path / "u", "uploader_server", arrived) as up,
        serving(tmp_path / "v", "vendor_server", arrived) as vendor,
        serving(tmp_path / "d", "downloader_server", tmp_path / "arrived.processed.zip") as down,
    ):
        outputs = []
        for step, server in (("uploader", up), ("vendor", vendor), ("downloader", down)):
            done = run_tool(
                *(f"{step}_client", "127.0.0.1", server.port, SITE),
                *("--lease", server.token_file),
                cwd=home,
            )
            assert (done.returncode, done.stderr) == (0, "")
            outputs.append(done.stdout)
            expected = {SITE, APP} | ({f"{SITE}.manifest.jsonl"} if step != "downloader" else set())
            assert {p.name for p in home.iterdir()} == expected
    assert (home / SITE).read_bytes() == processed[SITE]
    assert "59 members: 27 sent, 32 kept back" in outputs[0]
    assert "vendor: html: 23 members" in outputs[1]
    assert "changed: 22 members" in outputs[2]


def test_three_commands_on_one_lease_do_the_whole_job(
    pool: RunningPool, home: Path, tmp_path: Path, processed: dict[str, bytes]
) -> None:
    granted = run_tool(
        *("socketpool", "lease", *TRIO, "--ttl", "10m", "--json", "--state-dir", pool.state)
    )
    (tmp_path / "lease.json").write_text(granted.stdout)
    lease = json.loads(granted.stdout)
    ports = {service["service"]: service["port"] for service in lease["services"]}
    commands = ("uploader_client", "vendor_client", "downloader_client")
    for command, service in zip(commands, TRIO, strict=True):
        given = (pool.host, ports[service], SITE, "--lease", tmp_path / "lease.json")
        options: tuple[object, ...] = ("--output", "new.zip") if service == "download" else ()
        options += ("--state-dir", pool.state)
        done = run_tool(command, *given, *options, cwd=home)
        assert (done.returncode, done.stderr) == (0, "")
    assert (home / "new.zip").read_bytes() == processed[SITE]
    assert untouched(home, SITE)
    pool.release(lease)
    late = run_tool("vendor_client", *given, cwd=home)
    assert late.returncode in {3, 5}, "a released instance is stopped, and its lease is no more"


def test_several_files_are_done_on_one_lease(
    pool: RunningPool, home: Path, processed: dict[str, bytes]
) -> None:
    before = leases_granted(pool)
    done = client(pool, home, SITE, *TRIO, APP, *TRIO, "--backup", ".old")
    assert (done.returncode, done.stderr) == (0, "")
    assert leases_granted(pool) == before + 1
    for name in (SITE, APP):
        assert (home / name).read_bytes() == processed[name]
        assert (home / f"{name}.old").read_bytes() == (DATA / name).read_bytes()
        assert f"{name}: " in done.stdout
    assert pool.request("GET", "/v1/leases").body == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*TRIO, "gone.zip", *TRIO), "no such file exists"),
        (("upload", "vender", "download"), "known services: download, upload, vendor, web"),
        ((*TRIO, APP), "no service is named for"),
        ((*TRIO, APP, "vendor"), "needs an upload"),
        ((*TRIO, f"./{SITE}", *TRIO), "named twice"),
        ((*TRIO, APP, *TRIO, "--receipt", "r.json"), "for one file"),
    ],
)
def test_words_that_make_no_sense_are_2_and_nothing_is_leased(
    pool: RunningPool, home: Path, words: tuple[str, ...], said: str
) -> None:
    before = leases_granted(pool)
    done = client(pool, home, SITE, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert leases_granted(pool) == before
    assert untouched(home, SITE)


def test_a_second_file_that_is_no_archive_is_found_before_anything_is_leased(
    pool: RunningPool, home: Path
) -> None:
    (home / "b.zip").write_bytes(b"not a zip, but long enough to be looked into" * 20)
    before = leases_granted(pool)
    assert client(pool, home, SITE, *TRIO, "b.zip", *TRIO).returncode == 6
    assert leases_granted(pool) == before
    assert untouched(home, SITE)


def test_the_first_failure_ends_the_run_and_what_is_done_stays_which_is_said(
    maker: PoolMaker, home: Path
) -> None:
    code = (
        "from socketpool.errors import ServiceFailed\n"
        "from socketpool.rsi import VendorServer\n\n"
        "class Vendor(VendorServer):\n"
        "    def transfer(self):\n"
        "        if len(self.members) != 27:\n"
        "            raise ServiceFailed('no sources, please')\n"
        "        for path in self.members.values():\n"
        "            path.write_bytes(b'new')\n"
    )
    services = {name: shipped(name) for name in TRIO} | {"vendor": shipped("vendor", code)}
    pool = maker.start(services)
    shutil.copy(DATA / SITE, home / "third.zip")
    done = client(pool, home, SITE, *TRIO, APP, *TRIO, "third.zip", *TRIO, "--json")
    assert done.returncode == 7
    assert "no sources, please" in done.stderr
    assert f"left as it is now: {SITE}" in done.stderr
    told = events(done)
    assert [e["file"] for e in told if e["event"] == "summary"] == [SITE]
    assert (told[-1]["event"], told[-1]["exit_code"]) == ("error", 7)
    assert not untouched(home, SITE)
    assert untouched(home, APP)
    assert (home / "third.zip").read_bytes() == (DATA / SITE).read_bytes()
    assert pool.request("GET", "/v1/leases").body == []


def test_json_is_an_object_on_each_line_and_ends_with_the_summary(
    pool: RunningPool, home: Path
) -> None:
    done = client(pool, home, SITE, *TRIO, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = events(done)
    assert [e["service"] for e in told if e["event"] == "step"] == list(TRIO)
    assert [e["service"] for e in told if e["event"] == "step-done"] == list(TRIO)
    final = [e for e in told if e["event"] == "progress" and e["done"] == e["total"]]
    assert {e["service"] for e in final} == set(TRIO)
    summary = told[-1]
    assert summary["event"] == "summary"
    expected = {"members": 59, "sent": 27, "kept": 32, "changed": 22, "sent_bytes": 92183}
    assert expected.items() <= summary.items()
    assert summary["result"] == str(home / SITE)
    assert any("html: 23 members" in line for line in summary["reports"])


def test_quiet_prints_errors_alone(pool: RunningPool, home: Path) -> None:
    done = client(pool, home, SITE, *TRIO, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    failed = client(pool, home, SITE, "download", "--quiet")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "needs a vendor step" in failed.stderr


def test_a_dry_run_shows_every_file_and_needs_no_pool(home: Path) -> None:
    where = ("socketpool_client", "127.0.0.1", 1, SITE, *TRIO, APP, *TRIO, "--dry-run")
    done = run_tool(*where, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Nothing was sent.") == 2
    as_json = run_tool(*where, "--json", cwd=home)
    assert as_json.returncode == 2
    assert events(as_json)[-1]["exit_code"] == 2


def test_a_reader_that_has_had_enough_does_not_end_the_work(
    pool: RunningPool, home: Path, processed: dict[str, bytes]
) -> None:
    """``socketpool_client ... --json | head -1``."""
    from tests.support.pools import TOOLS, clean_environment

    process = subprocess.Popen(
        [
            *(TOOLS / "socketpool_client", pool.host, str(pool.port), SITE, *TRIO, APP, *TRIO),
            *("--json", "--state-dir", pool.state),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(home) | {"PYTHONUNBUFFERED": "1"},
        cwd=home,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    for name in (SITE, APP):
        assert (home / name).read_bytes() == processed[name]
