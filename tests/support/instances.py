"""One instance of an SDK service, run without a pool, optionally on a small disk of its own."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from socketpool.client.dial import dial_tcp
from socketpool.credentials.fence import Fence
from socketpool.credentials.tokens import LeaseClaim, LeaseTokens
from socketpool.protocol.session import greet
from socketpool.supervision.instancespec import InstanceSpec, LimitSpec, SdkSpec
from tests.support.pools import PoolMaker, connects
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

HOST = "127.0.0.1"
KEY = "key-of-these-tests"
GENERATION = 1

# $1 is where the small disk goes, $2 its size; seen by nobody outside, it ends with the process.
ON_SMALL_DISK = 'mount -t tmpfs -o size="$2" none "$1" && shift 2 && exec "$@"'


@dataclass
class Instance:
    """A running instance whose leases we make ourselves."""

    process: subprocess.Popen[bytes]
    port: int
    workspaces: Path
    """As seen from here, which may be through the instance's eyes."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def parent(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def lease(self) -> LeaseClaim:
        claim = LeaseClaim(f"lease{next(self._numbers)}", GENERATION)
        (self.workspaces / claim.lease).mkdir(mode=0o700)
        return claim

    @contextlib.contextmanager
    def connection(self, timeout: float = 30) -> Iterator[socket.socket]:
        with dial_tcp(HOST, self.port) as stream:
            stream.settimeout(timeout)
            yield stream

    @contextlib.contextmanager
    def session(self, claim: LeaseClaim, timeout: float = 30) -> Iterator[socket.socket]:
        with self.connection(timeout) as stream:
            greet(stream, LeaseTokens(KEY).sign(claim))
            yield stream


@contextlib.contextmanager
def running_instance(
    folder: Path, code: Path, name: str, *, disk: int | None = None, **limits: Any
) -> Iterator[Instance]:
    """An instance of the class ``name`` in the file ``code``."""
    workspaces = folder / "workspaces"
    workspaces.mkdir()
    (folder / "key").write_text(KEY)
    spec = InstanceSpec(
        name="tested",
        host=HOST,
        folder=str(code.parent),
        content="",
        environment={},
        limits=LimitSpec(
            **({"sessions": 8, "session_time": 60.0, "archive_size": 4 << 30} | limits)
        ),
        scratch="",
        supervisord_pid="",
        notify="",
        own_workspace=False,
        values={},
        argv=[],
        sdk=SdkSpec(
            file=code.name,
            cls=name,
            lease_key=str(folder / "key"),
            workspaces=str(workspaces),
            alive=str(folder),
            fence=str(folder / "fence"),
        ),
    )
    (folder / "spec.json").write_text(spec.text())
    prefix: list[str] = []
    if disk is not None:
        small = ("sh", "-ec", ON_SMALL_DISK, "sh", str(workspaces), str(disk))
        prefix = ["unshare", "--mount", "--propagation", "private", *small]
    with PoolMaker() as maker, (folder / "log").open("wb") as log:
        port = maker.ports().first
        Fence.create(folder / "fence").admit([port], GENERATION)
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "socketpool.rsi.runner",
            folder / "spec.json",
            str(port),
        ]
        process = subprocess.Popen([*prefix, *command], stderr=log)
        try:
            eventually(lambda: connects(HOST, port), (folder / "log").read_text())
            eyes = Path(f"/proc/{process.pid}/root")
            yield Instance(process, port, eyes / workspaces.relative_to("/"))
        finally:
            process.terminate()
            process.wait(30)
