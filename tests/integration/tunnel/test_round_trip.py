"""The main job through SSH, as a user runs it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pools import run_tool

if TYPE_CHECKING:
    import subprocess

    from pools import RunningPool
    from sshd import Sshd, SshdMaker

DATA = Path(__file__).parents[2] / "data" / "webflow-site.zip"
TRIO = ("upload", "vendor", "download")


def client(
    server: Sshd, pool: RunningPool, archive: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    """``socketpool_client`` through the server."""
    return run_tool(
        "socketpool_client",
        *("--ssh", server.alias, "--ssh-config", server.client_config),
        *(pool.host, pool.port, archive, *TRIO, *options),
    )


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_an_archive_is_processed_through_ssh(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(new_sshd.start(), trio, archive, "--token-file", trio.state / "token")
    assert result.returncode == 0, result.stderr
    assert "changed: 22 members" in result.stdout
    before, after = members(DATA), members(archive)
    assert list(after) == list(before)
    assert sum(before[name] != after[name] for name in before) == 22
    assert trio.request("GET", "/v1/leases").body == []


def test_an_ordinary_account_needs_no_token_here_for_its_own_pool_there(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(new_sshd.start(), trio, archive, "--state-dir", trio.state)
    assert result.returncode == 0, result.stderr
    assert "changed: 22 members" in result.stdout


def test_where_no_token_is_found_it_is_said_how_to_give_one(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(new_sshd.start(), trio, archive, "--state-dir", tmp_path)
    assert result.returncode == 5
    assert "--token-file" in result.stderr
    assert archive.read_bytes() == DATA.read_bytes()
