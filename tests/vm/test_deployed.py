"""A machine as ``vagrant up`` left it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import ACCESS, ROOT, client
from tests.support.members import assert_processed

if TYPE_CHECKING:
    from tests.support.machine import Machine

DATA = ROOT / "tests" / "data"


def test_it_has_systemd_and_a_kernel_of_its_own(machine: Machine) -> None:
    assert machine.run("systemctl is-system-running --wait").stdout == "running\n"
    assert machine.run("systemd-detect-virt").stdout in {"qemu\n", "kvm\n", "oracle\n"}
    assert machine.run("findmnt -no FSTYPE /var/lib/socketpool").stdout == "ext4\n"


def test_provisioning_again_changes_nothing(machine: Machine) -> None:
    said = machine.vagrant("provision", "--no-tty").stdout
    recap = re.findall(r"(?m)^pool +: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0", said)
    assert len(recap) == 1, said
    assert int(recap[0][0]) > 20
    assert recap[0][1] == "0", said


@pytest.mark.parametrize("name", ["webflow-site.zip", "angular-src.zip"])
def test_a_client_on_this_host_does_the_main_job(
    machine: Machine, tmp_path: Path, name: str
) -> None:
    archive = Path(shutil.copy(DATA / name, tmp_path))
    done = client(archive)
    assert done.returncode == 0, done.stderr
    changed = assert_processed(DATA / name, archive)
    assert f"changed: {len(changed)} members" in done.stdout
    assert machine.workspaces() == []


def test_the_client_s_account_can_do_nothing_else() -> None:
    def ssh(*words: str) -> str:
        command = ["ssh", "-F", str(ACCESS / "ssh_config"), "-o", "BatchMode=yes", *words]
        result = subprocess.run(
            command, input="\n", capture_output=True, text=True, check=False, timeout=120
        )
        assert result.returncode != 0
        return result.stdout + result.stderr

    assert "uid=" not in ssh("pool", "id")
    assert "administratively prohibited" in ssh("-W", "127.0.0.1:22", "pool")


def test_supervisorctl_shows_what_status_shows(machine: Machine) -> None:
    instances = {i["instance"]: i["pid"] for i in machine.settled()}
    assert {name.partition(":")[0] for name in instances} >= {"upload", "vendor", "download"}
    shown = machine.run("supervisorctl status").stdout
    programs = re.findall(r"(?m)^(\S+:\d+) +RUNNING +pid (\d+),", shown)
    assert {name: int(pid) for name, pid in programs} == instances
    assert re.search(r"(?m)^pool-server +RUNNING", shown)
    assert len(shown.splitlines()) == len(instances) + 1
