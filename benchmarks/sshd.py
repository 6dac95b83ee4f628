"""A private sshd on loopback, for benchmarks against what goes through one."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from tests.support import sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SSHD = sshd.SSHD


@dataclass
class Sshd(sshd.Sshd):
    """The private sshd, and the file by which clients find it."""

    @property
    def config(self) -> Path:
        """The ssh_config of its clients."""
        return self.client_config

    @property
    def client_config(self) -> Path:
        """One file for each port at which the same server is reached."""
        return self.folder / f"ssh_config-{self.port}"

    def at(self, port: int) -> Sshd:
        """The same behind a relay at another port."""
        relayed = replace(self, port=port)
        relayed.write_client_config()
        return relayed

    def cpu_seconds(self) -> float:
        """CPU time that it and all its ended sessions have used, in seconds."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system + times.children_user + times.children_system


@contextmanager
def private_sshd(folder: Path) -> Iterator[Sshd]:
    """An sshd for the length of a ``with`` block; its files are in the folder."""
    with socket.create_server((sshd.HOST, 0)) as free:
        port = free.getsockname()[1]
    # Its key is known under the alias, so that it is at the port of a relay too.
    made = Sshd(folder, port, "there", client_options="  HostKeyAlias there\n  LogLevel ERROR")
    made.prepare()
    kind, key, *_ = (folder / "host_ed25519.pub").read_text().split()
    made.known_hosts.write_text(f"there {kind} {key}\n")
    try:
        yield made.start()
    finally:
        made.kill()
