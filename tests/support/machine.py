"""The Vagrant machine ``pool`` as its owner and its clients see it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
VAGRANT = ROOT / "vagrant"
OWN = VAGRANT / ".vagrant"
ACCESS = OWN / "socketpool"
TOOLS = Path(sys.executable).parent
PLAY_SECONDS = 1200
"""Emulated, on a busy machine; nothing is measured by it."""


class Machine:
    """The machine that ``script/vm up`` has made.

    ``run`` comes as Vagrant's account, an operator; `tool` as a client does, through the account
    that can do nothing else.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="sp-vm-"))
        self._config = self._folder / "ssh_config"

    def __enter__(self) -> Self:
        self._learn()
        return self

    def __exit__(self, *exc: object) -> None:
        self._hang_up()
        shutil.rmtree(self._folder)

    def _learn(self) -> None:
        """How it is reached; one connection serves all commands."""
        self._hang_up()
        told = self.vagrant("ssh-config", "pool").stdout
        # In its own file, because an address may have changed.
        shared = f"  ControlMaster auto\n  ControlPersist 600\n  ControlPath {self._folder}/%C\n"
        self._config.write_text(told.rstrip() + "\n" + shared)

    def _hang_up(self) -> None:
        if self._config.exists():
            subprocess.run(
                ["ssh", "-F", self._config, "-O", "exit", "pool"], capture_output=True, check=False
            )

    def vagrant(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Vagrant's commands."""
        result = subprocess.run(
            ["vagrant", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PLAY_SECONDS,
            env=os.environ | {"VAGRANT_CWD": str(VAGRANT), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        )
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        return result

    def run(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell's command there as an operator, who may become root with sudo."""
        result = subprocess.run(
            ["ssh", "-F", self._config, "pool", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert not check or result.returncode == 0, (command, result.stdout, result.stderr)
        return result

    def pull_the_plug(self) -> None:
        """End it as a power cut does: what it had not written to its disk is lost."""
        domain = (OWN / "machines" / "pool" / "libvirt" / "id").read_text()
        subprocess.run(["virsh", "--quiet", "destroy", domain], check=True)
        self._hang_up()

    def boot(self) -> None:
        """Start it again."""
        self.vagrant("up", "--no-provision", "--no-tty")
        self._learn()

    def reload(self) -> None:
        """Reboot it in order."""
        self.vagrant("reload", "--no-tty")
        self._learn()

    def instances(self) -> list[dict[str, Any]]:
        """What ``socketpool status`` shows."""
        found: list[dict[str, Any]] = json.loads(self.run("socketpoolctl status --json").stdout)
        return found

    def settled(self) -> list[dict[str, Any]]:
        """The same, once every instance is idle."""

        def idle() -> list[dict[str, Any]]:
            result = self.run("socketpoolctl status --json", check=False)
            found = json.loads(result.stdout) if result.returncode == 0 else []
            return found if {i["state"] for i in found} == {"idle"} else []

        return eventually(idle, "all instances idle", seconds=300)

    def database(self) -> str:
        """What SQLite says of the pool's database."""
        check = (
            "import sqlite3;"
            'db = sqlite3.connect("file:/var/lib/socketpool/leases.sqlite?mode=ro", uri=True);'
            'print(db.execute("pragma integrity_check").fetchone()[0])'
        )
        return self.run(f"sudo -u socketpool python3 -c '{check}'").stdout.strip()

    def workspaces(self) -> list[str]:
        """The leases that have one."""
        return self.run("sudo ls /var/lib/socketpool/workspaces").stdout.split()


def tool(name: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of the client's commands on this host."""
    return subprocess.run(
        [TOOLS / name, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=client_environment(),
        **options,
    )


def client_environment() -> dict[str, str]:
    """Of somebody who has what the Vagrantfile wrote and nothing else."""
    kept = {
        n: v for n, v in os.environ.items() if not n.startswith(("SOCKETPOOL_", "XDG_", "SSH_"))
    }
    return kept | {"XDG_CONFIG_HOME": str(OWN)}


def client_command(archive: Path, *words: object) -> list[str]:
    """``socketpool_client`` with all that it needs to go through the restricted account."""
    way = ("--ssh", "pool", "--ssh-config", ACCESS / "ssh_config")
    command = [TOOLS / "socketpool_client", *way, "--token-file", ACCESS / "pool.token"]
    command += ["127.0.0.1", 8080, archive, "upload", "vendor", "download", *words]
    return list(map(str, command))


def client(archive: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command = client_command(archive, *words)
    return tool(Path(command[0]).name, *command[1:])
