"""A private sshd on loopback, for benchmarks against what goes through one."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""

SSH_CONFIG = """\
Host there
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  HostKeyAlias there
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


class Sshd(NamedTuple):
    """The private sshd, and the file by which clients find it."""

    process: subprocess.Popen[bytes]
    config: Path
    port: int

    def at(self, port: int) -> Sshd:
        """The same behind a relay at another port."""
        folder = self.config.parent
        config = folder / f"ssh_config-{port}"
        config.write_text(SSH_CONFIG.format(port=port, folder=folder, user=getpass.getuser()))
        return Sshd(self.process, config, port)

    def cpu_seconds(self) -> float:
        """CPU that it and all whom it served have used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system + times.children_user + times.children_system


@contextmanager
def private_sshd(folder: Path) -> Iterator[Sshd]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    key = (folder / "host.pub").read_text(encoding="ascii")
    (folder / "known").write_text(f"there {key}", encoding="ascii")
    values = {"port": port, "folder": folder, "user": getpass.getuser()}
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(**values), encoding="utf-8")
    (folder / "ssh_config").write_text(SSH_CONFIG.format(**values), encoding="utf-8")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    process = subprocess.Popen(
        [SSHD, "-D", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield Sshd(process, folder / "ssh_config", port)
    finally:
        process.terminate()
        process.wait()
