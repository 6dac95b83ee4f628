"""A lease's workspace: one private directory in which its services work.

The first of them that is entered makes it; the pool server takes it away, by one rename, after the
`fence` has ended the lease.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from socketpool.errors import NotAuthorised, ServiceFailed, TimedOut
from socketpool.rsi.interfaces import NotLocked, SemaphoreInterface

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.credentials.fence import Tenure
    from socketpool.credentials.tokens import LeaseClaim

_LEASE_ID = re.compile(r"[a-z0-9]{1,64}")


@dataclass(slots=True)
class StepResult:
    """What a vendor step leaves: its author writes the archive and says the outcome."""

    archive: Path
    outcome: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directory of one lease, as one session on one of its ports sees it.

    Each vendor step leaves an archive of all members that differ from the upload by then, so the
    last one is what goes back.  A step has an identity, which the client chooses: sessions of the
    same identity are attempts at one step, which is done once, and every other identity is a step
    of its own, also on the same instance.
    """

    root: Path
    port: int = field(default=0, compare=False)
    step_id: str = field(default="", compare=False)
    """Empty for a client that names no step: all of its sessions on a port are one step."""

    @property
    def incoming(self) -> Path:
        """The archive that the client uploaded."""
        return self.root / "incoming.zip"

    @property
    def outgoing(self) -> Path | None:
        """What the last vendor step left, if there was one."""
        return next(reversed(self._steps()), None)

    def finished(self) -> dict[str, Any] | None:
        """The outcome of this session's step when an earlier attempt has finished it."""
        for path in self._steps():
            if path.stem.rpartition("-")[2] == self._identity:
                outcome = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
                return dict(outcome)
        return None

    @contextmanager
    def step(self) -> Iterator[StepResult]:
        """This step's result, which counts once the ``with`` block has ended well.

        The steps that are finished by then stay as they are, and this one comes after them.
        """
        part = self.root / "step.part"
        part.unlink(missing_ok=True)
        result = StepResult(part)
        yield result
        steps = self._steps()
        number = 1 + int(steps[-1].stem.split("-")[1]) if steps else 0
        target = self.root / f"step-{number:06d}-{self._identity}.zip"
        # The outcome first: the archive's name is what makes the step a finished one.
        target.with_suffix(".json").write_text(json.dumps(result.outcome), encoding="utf-8")
        part.replace(target)

    def forget_steps(self) -> None:
        """Something else was uploaded."""
        for path in self._steps():
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)

    def _steps(self) -> list[Path]:
        return sorted(self.root.glob("step-*.zip"))

    @property
    def _identity(self) -> str:
        return self.step_id or str(self.port)

    @property
    def members(self) -> Path:
        """The members while the vendor works on them, under names of ours."""
        return self.root / "members"


def enter(workspaces: Path, claim: LeaseClaim, tenure: Tenure, step: str = "") -> Workspace:
    """The workspace of a live lease, made when its first service enters; raises NotAuthorised.

    ``step`` is the identity of the session's step, as the greeting gave it.
    """
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
    return Workspace(root, tenure.port, step)


def discard(workspaces: Path, trash: Path, lease_id: str) -> None:
    """Take the workspace away, if there is one, by moving it where it will be deleted.

    Raises OSError; the lease has ended all the same, and the directory is looked for again.
    """
    with suppress(FileNotFoundError):  # plain strings: it is done for every lease there is
        os.rename(f"{workspaces}/{lease_id}", f"{trash}/{lease_id}.{time.monotonic_ns()}")  # noqa: PTH104


class WorkspaceLock(SemaphoreInterface):
    """Keeps the steps of one lease apart, across processes; ends with the process that holds it."""

    def __init__(self, workspace: Workspace, *, wait_seconds: float) -> None:
        self._path = workspace.root / "lock"
        self._wait_seconds = wait_seconds
        self._fd = -1
        self._depth = 0

    def lock(self) -> None:
        """See `SemaphoreInterface.lock`."""
        if self._depth == 0:
            self._fd = self._acquire()
        self._depth += 1

    def unlock(self) -> None:
        """See `SemaphoreInterface.unlock`."""
        if self._depth == 0:
            raise NotLocked
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)

    def _acquire(self) -> int:
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotAuthorised("the lease has ended", hint="take a new lease") from None
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    raise TimedOut("another step of this lease is still at work") from None
                time.sleep(0.02)
            else:
                return fd
