"""The main job as a user does it: real archives, the shipped services, the installed commands."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.members import PROCESSED, assert_processed, entries
from tests.support.pools import TOOLS, clean_environment, run_tool, shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import PoolMaker, RunningPool

DATA = Path(__file__).parent.parent / "data"
TRIO = ("upload", "vendor", "download")


@pytest.fixture(scope="module")
def pool(shipped_maker: PoolMaker) -> RunningPool:
    """A pool of the shipped catalogue, run by a pool.yml as an operator writes one."""
    folder, ports = shipped_maker.folder(), shipped_maker.ports()
    config = folder / "pool.yml"
    config.write_text(f"pool: {{ports: {ports}}}\nservices: {{upload: {{warm: 3, max: 12}}}}\n")
    return shipped_maker.launch(folder, config, ports)


@pytest.fixture(scope="module")
def shipped_maker() -> Iterator[PoolMaker]:
    from tests.support.pools import PoolMaker

    with PoolMaker() as maker:
        yield maker


def client(
    pool: RunningPool, archive: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """``socketpool_client`` against the pool, from the archive's folder."""
    return run_tool(
        "socketpool_client",
        *(pool.host, pool.port, archive.name, *arguments, "--state-dir", pool.state),
        cwd=archive.parent,
    )


@pytest.mark.parametrize("name", ["webflow-site.zip", "angular-src.zip"])
def test_only_processed_members_change_and_everything_else_stays_byte_for_byte(
    pool: RunningPool, tmp_path: Path, name: str
) -> None:
    archive = Path(shutil.copy(DATA / name, tmp_path))
    archive.chmod(0o640)

    result = client(pool, archive, *TRIO)

    assert result.returncode == 0, result.stderr
    changed = assert_processed(DATA / name, archive)
    assert archive.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert f"changed: {len(changed)} members" in result.stdout
    assert pool.request("GET", "/v1/leases").body == []


def test_the_summary_tells_what_left_and_a_log_gets_no_progress(
    pool: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    result = client(pool, archive, *TRIO)
    size = archive.stat().st_size
    assert "59 members: 27 sent, 32 kept back" in result.stdout
    assert "left this machine: " in result.stdout
    assert f"of {(DATA / 'webflow-site.zip').stat().st_size:,} bytes" in result.stdout
    assert "vendor: html: 23 members" in result.stdout
    assert size < (DATA / "webflow-site.zip").stat().st_size
    assert result.stderr == ""


def test_several_clients_at_once_each_get_their_own_archive_back(
    pool: RunningPool, tmp_path: Path
) -> None:
    names = ["webflow-site.zip", "angular-src.zip"] * 4
    archives = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        archives.append(Path(shutil.copy(DATA / name, folder)))
    results: dict[int, subprocess.CompletedProcess[str]] = {}

    def run(number: int) -> None:
        results[number] = client(pool, archives[number], *TRIO)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [results[n].returncode for n in range(len(names))] == [0] * len(names), [
        r.stderr for r in results.values()
    ]
    for name in set(names):
        same = [a.read_bytes() for a, n in zip(archives, names, strict=True) if n == name]
        assert same[0] != (DATA / name).read_bytes()
        assert all(other == same[0] for other in same)


def test_a_second_run_finds_nothing_to_change_and_leaves_the_file_alone(
    pool: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    client(pool, archive, *TRIO)
    first = archive.read_bytes()
    result = client(pool, archive, *TRIO)
    assert result.returncode == 0, result.stderr
    assert entries(archive).keys() == entries(DATA / "webflow-site.zip").keys()
    assert len(archive.read_bytes()) <= len(first)


def test_a_subset_of_services_leaves_the_archive_as_it_was(
    pool: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    result = client(pool, archive, "upload", "vendor")
    assert result.returncode == 0, result.stderr
    assert archive.read_bytes() == (DATA / "webflow-site.zip").read_bytes()


@pytest.mark.parametrize(
    ("services", "said"),
    [
        (["upload", "translate"], "known services: download, upload, vendor, web"),
        (["download"], "needs a vendor step before it"),
        (["upload", "download"], "needs a vendor step before it"),
        (["vendor"], "needs an upload"),
        (["web"], "socketpool lease web"),
    ],
)
def test_services_that_make_no_sense_are_refused_with_what_would(
    pool: RunningPool, tmp_path: Path, services: list[str], said: str
) -> None:
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    result = client(pool, archive, *services)
    assert result.returncode == 2
    assert said in result.stderr
    assert archive.read_bytes() == (DATA / "webflow-site.zip").read_bytes()


def test_output_backup_and_receipt_are_written_as_asked(pool: RunningPool, tmp_path: Path) -> None:
    original = (DATA / "webflow-site.zip").read_bytes()
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    to_other = client(pool, archive, *TRIO, "--output", "new.zip", "--receipt", "receipt.json")
    assert to_other.returncode == 0, to_other.stderr
    assert archive.read_bytes() == original
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert len(receipt["sent"]) == 27
    assert receipt["kept_back"]["members"] == 32
    assert len(receipt["changed"]) == 22
    assert receipt["lease"] in to_other.stdout
    assert "27 sent, of which 22 changed and 5 unchanged; 32 kept back" in to_other.stdout
    assert receipt["sent"][0]["sha256"][:16] in to_other.stdout
    assert "… and 15 more" in to_other.stdout

    kept = client(pool, archive, *TRIO, "--backup", ".orig")
    assert kept.returncode == 0, kept.stderr
    assert (tmp_path / "webflow-site.zip.orig").read_bytes() == original
    assert archive.read_bytes() == (tmp_path / "new.zip").read_bytes()


def test_a_policy_file_and_a_hook_keep_more_at_home(pool: RunningPool, tmp_path: Path) -> None:
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    (tmp_path / ".socketpool.yml").write_text('deny: ["*.js"]\n')
    (tmp_path / "hook.py").write_text(
        "def is_implodable(member):\n    return member.name.endswith('.css')\n"
    )
    result = client(pool, archive, *TRIO, "--hook", "hook.py")
    assert result.returncode == 0, result.stderr
    before, after = entries(DATA / "webflow-site.zip"), entries(archive)
    changed = {n for n in before if before[n][1] != after[n][1]}
    assert {Path(n).suffix for n in changed} == {".html"}
    assert "59 members: 23 sent, 36 kept back" in result.stdout


def test_a_directory_is_processed_like_an_archive(pool: RunningPool, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(DATA / "webflow-site.zip") as file:
        file.extractall(site)
    before = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    result = client(pool, site, *TRIO)
    assert result.returncode == 0, result.stderr
    after = {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}
    assert after.keys() == before.keys()
    changed = {p for p in before if before[p] != after[p]}
    assert changed
    assert {p.suffix for p in changed} <= PROCESSED


def test_a_file_that_is_no_archive_is_refused_before_anything_is_leased(
    pool: RunningPool, tmp_path: Path
) -> None:
    (tmp_path / "site.zip").write_bytes(b"not a zip, but long enough to be looked into" * 20)
    before = pool.log("pool-server").count("lease granted")
    result = client(pool, tmp_path / "site.zip", *TRIO)
    assert result.returncode == 6
    assert pool.log("pool-server").count("lease granted") == before


def test_ctrl_c_releases_the_lease_and_leaves_the_archive_alone(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    slow = (
        "import time\nfrom socketpool.rsi import VendorServer\n\n"
        "class Vendor(VendorServer):\n    def transfer(self):\n        time.sleep(60)\n"
    )
    trio = {name: shipped(name) for name in TRIO} | {"vendor": shipped("vendor", slow)}
    pool = new_pool.start(trio)
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    process = subprocess.Popen(
        [
            *(TOOLS / "socketpool_client", pool.host, str(pool.port), archive, *TRIO),
            *("--state-dir", pool.state),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(tmp_path),
        start_new_session=True,
    )
    with process:
        eventually(
            lambda: [i for i in pool.instances("vendor") if i["state"] == "leased"], "the lease"
        )
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert pool.request("GET", "/v1/leases").body == []
    assert archive.read_bytes() == (DATA / "webflow-site.zip").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".cache"] == ["webflow-site.zip"]


def test_a_range_on_the_command_line_serves_the_shipped_catalogue_and_stops_clean(
    new_pool: PoolMaker, tmp_path: Path
) -> None:
    folder, ports = new_pool.folder(), new_pool.ports()
    pool = new_pool.launch(folder, str(ports), ports)
    archive = Path(shutil.copy(DATA / "webflow-site.zip", tmp_path))
    assert client(pool, archive, *TRIO).returncode == 0
    names = {
        line.split()[0].partition(":")[0]
        for line in pool.supervisorctl("status").split("\n")
        if line
    }
    assert {n.partition(".")[0] for n in names} == {"pool-server", *TRIO, "web"}
    assert pool.stop(signal.SIGINT) == 0
    pool.assert_nothing_left()


def test_a_state_directory_that_is_somebody_s_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    result = run_tool("socketpool_server", "127.0.0.1", "0", "21000-21499", "--state-dir", tmp_path)
    assert result.returncode == 2
    assert "not a pool's" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["services"]
