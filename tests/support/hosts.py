"""Hosts to deploy to: containers that run systemd and sshd.

``hosts.py NETWORK NAME SUITE`` starts one and prints the port of this machine at which its sshd
is reached; molecule's create playbook calls it so.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from typing import cast

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"  # its image may be out of reach

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

IMAGE = "socketpool-test/target:{}"  # of the Debian that is named there
LABEL = {"socketpool-test": "1"}
# What systemd needs, and no more: a privileged container would hide what hardening breaks.
SYSTEMD = {
    "cap_add": ["SYS_ADMIN"],
    "cgroupns": "host",
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "labels": LABEL,
}
START_SECONDS = 120


class Host:
    """A started host; it stays until `remove`, or until somebody sweeps by the label."""

    def __init__(self, name: str, network: str | None = None, suite: str = "bookworm") -> None:
        self.name = f"{network}-{name}" if network else name
        # Chosen here, so that it is the same after a restart.
        self.port = free_port()
        container = (
            DockerContainer(IMAGE.format(suite))
            .with_name(self.name)
            .with_volume_mapping("/sys/fs/cgroup", "/sys/fs/cgroup", "rw")
            .with_tmpfs_mount("/run")
            .with_tmpfs_mount("/run/lock")
            .with_kwargs(hostname=name, **SYSTEMD)
        )
        # Not on every address: docker takes the pair, the annotation of testcontainers does not.
        container.ports = cast("dict[str, int | None]", {"22/tcp": ("127.0.0.1", self.port)})
        if network:
            joined = Network()
            joined.name = network
            container.with_network(joined).with_network_aliases(name)
        self._container = container.start()
        wait_running(self.name)

    def remove(self) -> None:
        """Whatever state it is in."""
        self._container.stop()


def run(
    container: str, *command: str, user: str = "root", check: bool = True, cwd: str = "/"
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container; its output is text."""
    prefix = ["docker", "exec", "--interactive", "--user", user, "--workdir", cwd, container]
    result = subprocess.run(
        [*prefix, *command], capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or result.returncode == 0, (command, result.stdout, result.stderr)
    return result


def wait_running(container: str) -> None:
    """Return when all of its units are up; raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    state = ""
    while time.monotonic() < deadline:
        answer = run(container, "systemctl", "is-system-running", "--wait", check=False)
        state = (answer.stdout + answer.stderr).strip()
        if state == "running":
            return
        time.sleep(0.5)
    raise TimeoutError(f"systemd in {container} is {state}")


def free_port() -> int:
    """A port of this machine that nobody has, below those that outgoing connections get.

    It stays free until the container has it, and while that restarts.
    """
    while True:
        port = random.randrange(30000, 32768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


if __name__ == "__main__":
    network, name, suite = sys.argv[1:]
    sys.stdout.write(f"{Host(name, network, suite).port}\n")
