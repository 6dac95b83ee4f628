"""A pool and a client that the real playbooks deployed, for tests to look at and to change."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.support import hosts
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
MOLECULE = ROOT / "molecule"
PLAYBOOKS = ROOT / "playbooks"
PLAY_SECONDS = 900
SETTLE_SECONDS = 120

# Whose modes and owners are looked at.
SYSTEM = ("/etc", "/root", "/home", "/usr/local", "/var/lib", "/var/log")


class Deployment:
    """Hosts ``pool`` and ``client``, with the inventory that molecule's scenarios share.

    ``output`` is all that Ansible has said about them, as an operator would find it in a log.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._network = f"socketpool-{name}"
        self._folder = folder
        self._environment = os.environ | {
            "PATH": f"{ROOT / '.venv-deploy' / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_FORCE_COLOR": "false",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(folder),
            "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
            "MOLECULE_SCENARIO_NAME": name,
        }
        self.output = ""

    @property
    def pool(self) -> str:
        """The pool's container."""
        return f"{self._network}-pool"

    @property
    def client(self) -> str:
        """The client's container."""
        return f"{self._network}-client"

    @property
    def token(self) -> str:
        """The client's token, a secret."""
        return (self._folder / "acme.token").read_text().strip()

    def create(self) -> None:
        """Start bare hosts with the accounts that the inventory names."""
        self.play(MOLECULE / "shared" / "create.yml")
        self.play(MOLECULE / "shared" / "prepare.yml")

    def destroy(self) -> None:
        """Remove them, in whatever state they are."""
        self.play(MOLECULE / "shared" / "destroy.yml")

    def play(
        self, playbook: Path, *arguments: str, check: bool = True, core: str = ".venv-deploy"
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook against the hosts."""
        inventories = [
            MOLECULE / "shared" / "inventory",
            MOLECULE / "default" / "hosts.yml",
            self._folder / "hosts.yml",
        ]
        command = [str(ROOT / core / "bin" / "ansible-playbook")]
        for inventory in inventories:
            command += ["--inventory", str(inventory)] if inventory.exists() else []
        result = subprocess.run(
            [*command, "--diff", *arguments, str(playbook)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PLAY_SECONDS,
            cwd=ROOT,
            env=self._environment,
        )
        self.output += result.stdout + result.stderr
        assert not check or result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        return result

    def configure(
        self, *, check: bool = True, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Deploy with other variables than the inventory's, as far as configuration goes."""
        words = ["--tags", "config,service", "--limit", "pool"]
        return self.play(
            PLAYBOOKS / "site.yml", *words, "--extra-vars", json.dumps(variables), check=check
        )

    def processes(self) -> dict[str, dict[int, int]]:
        """The process of each instance, by service and port."""
        found: dict[str, dict[int, int]] = {}
        status = hosts.run(self.pool, "socketpoolctl", "status", "--json").stdout
        for instance in json.loads(status):
            assert instance["state"] == "idle", instance
            found.setdefault(instance["service"], {})[instance["port"]] = instance["pid"]
        return found

    def main_process(self) -> int:
        """The process id of socketpool_server."""
        command = ("systemctl", "show", "--value", "--property=MainPID", "socketpool.service")
        return int(hosts.run(self.pool, *command).stdout)

    def settled(self) -> dict[str, dict[int, int]]:
        """As `processes`, once every instance is idle."""

        def idle() -> dict[str, dict[int, int]] | None:
            try:
                return self.processes()
            except AssertionError:
                return None

        found = eventually(idle, "all instances idle", SETTLE_SECONDS)
        assert found is not None
        return found


def modes(container: str) -> dict[str, str]:
    """Mode and owner of every file of the system, by path."""
    listed = hosts.run(container, "find", *SYSTEM, "-printf", "%p\t%M %u:%g\n").stdout
    return dict(line.split("\t") for line in listed.splitlines())


def changes(output: str) -> dict[str, int]:
    """How many tasks have changed something, by host, as a play tells at its end."""
    found = re.findall(r"(?m)^(\w+) +: ok=\d+ +changed=(\d+)", output)
    return {host: int(changed) for host, changed in found}
