"""Reboots, in order and not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from socketpool.cli.access import Way, reach
from socketpool.errors import NotAuthorised
from tests.support.machine import ACCESS, ROOT, client, client_command, client_environment
from tests.support.members import assert_processed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from socketpool.client.api import PoolClient
    from tests.support.machine import Machine

ORIGINAL = ROOT / "tests" / "data" / "webflow-site.zip"
MIB = 1 << 20


def api() -> AbstractContextManager[PoolClient]:
    """The pool's API through the restricted account."""
    way = Way(
        host="127.0.0.1",
        port=8080,
        token_file=str(ACCESS / "pool.token"),
        state_dir=None,
        ssh="pool",
        ssh_config=ACCESS / "ssh_config",
        accept_new=False,
    )
    return reach(way, lambda _: None)


def test_after_a_reboot_all_is_back_and_a_lease_from_before_is_over(
    machine: Machine, tmp_path: Path
) -> None:
    services = {i["service"] for i in machine.settled()}
    with api() as pool:
        lease = pool.acquire(["upload"], wait=30, ttl=3600)
    boot = machine.run("cat /proc/sys/kernel/random/boot_id").stdout

    machine.reload()

    assert machine.run("cat /proc/sys/kernel/random/boot_id").stdout != boot
    assert {i["service"] for i in machine.settled()} == services
    with api() as pool:
        assert pool.leases() == []
        with pytest.raises(NotAuthorised, match="no such lease"):
            pool.renew(lease.id)
    assert lease.id not in machine.workspaces()
    archive = Path(shutil.copy(ORIGINAL, tmp_path))
    done = client(archive)
    assert done.returncode == 0, done.stderr
    assert_processed(ORIGINAL, archive)


def large_archive(path: Path) -> bytes:
    """One whose upload takes some seconds."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("data.vue", os.urandom(48 * MIB))
        out.writestr("index.html", "<html> <body>  </body> </html>")
    return path.read_bytes()


def uploaded(process: subprocess.Popen[str]) -> Iterator[int]:
    """How far the upload is, as the client tells."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["service"] == "upload":
            yield event["done"]


def test_the_plug_is_pulled_during_an_upload(machine: Machine, tmp_path: Path) -> None:
    archive = tmp_path / "large.zip"
    original = large_archive(archive)
    command = client_command(archive, "--json")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=client_environment(),
    ) as process:
        try:
            far = next(done for done in uploaded(process) if done > MIB)
            assert far < 40 * MIB, "it was too fast for this test"
            machine.pull_the_plug()
            machine.boot()
            said, errors = process.communicate(timeout=300)
        finally:
            process.kill()

    assert machine.database() == "ok"
    assert all(i["lease"] is None for i in machine.settled())
    assert machine.workspaces() == []
    assert process.returncode in {3, 5, 7, 8}, (said, errors)
    end = json.loads(said.splitlines()[-1])
    assert end["event"] == "error", end
    assert end["message"], end
    assert archive.read_bytes() == original
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]
    again = client(archive)
    assert again.returncode == 0, again.stderr
    assert archive.read_bytes() != original
