"""The disk of the state directory is full: refusals that say so, and work again when it isn't."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.machine import ROOT, client
from tests.support.members import assert_processed

if TYPE_CHECKING:
    from tests.support.machine import Machine

ORIGINAL = ROOT / "tests" / "data" / "webflow-site.zip"
PLACE = "/var/lib/socketpool"
FILL = f"""
fallocate -l "$(df --output=avail -B1 {PLACE} | tail -n 1)" {PLACE}/hog
dd if=/dev/zero of={PLACE}/hog bs=4k oflag=append conv=notrunc status=none
! df --output=avail {PLACE} | grep -q '[1-9]'
"""


def test_on_a_full_disk_the_client_is_refused_and_then_it_works_again(
    machine: Machine, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(ORIGINAL, tmp_path))
    server = machine.run("supervisorctl pid pool-server").stdout
    machine.run(f"sudo sh -c '{FILL}' 2>/dev/null")
    try:
        refused = client(archive)
        doctor = machine.run("socketpoolctl doctor", check=False)
    finally:
        machine.run(f"sudo rm -f {PLACE}/hog")
    assert refused.returncode in {4, 6}
    assert "disk" in refused.stderr or "no room" in refused.stderr
    assert archive.read_bytes() == ORIGINAL.read_bytes()
    assert doctor.returncode == 1
    assert "problem  disk" in doctor.stdout

    done = client(archive)
    assert done.returncode == 0, done.stderr
    assert_processed(ORIGINAL, archive)
    assert machine.run("supervisorctl pid pool-server").stdout == server
    assert machine.database() == "ok"
    assert machine.workspaces() == []
