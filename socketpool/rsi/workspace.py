"""A lease's workspace: one private directory in which its services work.

The first of them that is entered makes it; the pool server takes it away, by one rename, after the
`fence` has ended the lease.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from socketpool.errors import NotAuthorised, ServiceFailed, TimedOut
from socketpool.rsi.interfaces import SemaphoreInterface

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.rsi.fence import Tenure
    from socketpool.rsi.tokens import LeaseClaim

_LEASE_ID = re.compile(r"[a-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directory of one lease, as the service on one of its ports sees it.

    Each vendor step leaves an archive of all members that differ from the upload by then, so the
    last one is what goes back.  A step that is repeated starts from what it started from the first
    time, and what came after it is forgotten.
    """

    root: Path
    port: int = field(default=0, compare=False)

    @property
    def incoming(self) -> Path:
        """The archive that the client uploaded."""
        return self.root / "incoming.zip"

    @property
    def outgoing(self) -> Path | None:
        """What the last vendor step left, if there was one."""
        return next(reversed(self._steps()), None)

    @property
    def before_step(self) -> Path | None:
        """What the step before this service's own left, if there was one."""
        steps = self._steps()
        own = self._own(steps)
        return steps[own - 1] if own > 0 else None

    @contextmanager
    def step(self) -> Iterator[Path]:
        """A path for this step's archive, which counts once the ``with`` block has ended well."""
        steps = self._steps()
        own = self._own(steps)
        part = self.root / "step.part"
        part.unlink(missing_ok=True)
        yield part
        part.replace(self.root / f"step-{own:04d}-{self.port}.zip")
        for later in steps[own + 1 :]:
            later.unlink()

    def forget_steps(self) -> None:
        """Something else was uploaded."""
        for path in self._steps():
            path.unlink()

    def _steps(self) -> list[Path]:
        return sorted(self.root.glob("step-*.zip"))

    def _own(self, steps: list[Path]) -> int:
        ports = [int(path.stem.rpartition("-")[2]) for path in steps]
        return ports.index(self.port) if self.port in ports else len(steps)

    @property
    def members(self) -> Path:
        """The members while the vendor works on them, under names of ours."""
        return self.root / "members"


def enter(workspaces: Path, claim: LeaseClaim, tenure: Tenure) -> Workspace:
    """The workspace of a live lease, made when its first service enters; raises NotAuthorised."""
    refused = NotAuthorised(
        "the lease has ended or is not for this service", hint="take a new lease"
    )
    if not tenure.lasts() or _LEASE_ID.fullmatch(claim.lease) is None:
        raise refused
    root = workspaces / claim.lease
    try:
        root.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ServiceFailed(
            f"no workspace could be made: {error.strerror}",
            hint="the pool's operator has to look after its disk",
        ) from None
    if not tenure.lasts():  # and whoever ended it may not have seen the directory
        with suppress(OSError):
            root.rmdir()
        raise refused
    return Workspace(root, tenure.port)


def discard(workspaces: Path, trash: Path, lease_id: str) -> None:
    """Take the workspace away, if there is one, by moving it where it will be deleted.

    Raises OSError; the lease has ended all the same, and the directory is looked for again.
    """
    with suppress(FileNotFoundError):  # plain strings: it is done for every lease there is
        os.rename(f"{workspaces}/{lease_id}", f"{trash}/{lease_id}.{time.monotonic_ns()}")  # noqa: PTH104


class WorkspaceLock(SemaphoreInterface):
    """Keeps the steps of one lease apart, across processes; ends with the process that holds it."""

    def __init__(self, workspace: Workspace, *, patience: float) -> None:
        self._path = workspace.root / "lock"
        self._patience = patience
        self._fd = -1

    def lock(self) -> None:
        """See `SemaphoreInterface.lock`."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotAuthorised("the lease has ended", hint="take a new lease") from None
        deadline = time.monotonic() + self._patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise TimedOut("another step of this lease is still at work") from None
                time.sleep(0.02)
            else:
                self._fd = fd
                return

    def unlock(self) -> None:
        """See `SemaphoreInterface.unlock`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
