"""Vendors in any language: a program that runs in a directory with the members in it.

It works on files under their own names, in a directory of its own.  What it changed goes back;
what it added or deleted is refused unless the service ignores it, since neither can be given back.
Its output goes to the log with the lease's id and never to the client: a traceback shows source
lines and may show a password.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import subprocess
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from socketpool import variables
from socketpool.archive.names import show
from socketpool.errors import ServiceFailed
from socketpool.rsi import tree
from socketpool.rsi.crash import details_in_log, how_it_ended
from socketpool.rsi.service import ServiceServer, SessionLimits, require_upload
from socketpool.supervision.instancespec import fill
from socketpool.system.ownprocess import die_with_parent, reset_signals
from socketpool.system.wiping import wipe

if TYPE_CHECKING:
    from socketpool.protocol.frames import Stream
    from socketpool.rsi.runner.workspace import Workspace
    from socketpool.supervision.instancespec import InstanceSpec

LAST_LINES = 20
"""Lines of a failed program's output that the log repeats beside its exit code."""

LINE_BYTES = 2000
LOGGED_LINES = 5000
"""Lines of a program's output that the log takes; of the rest it has the last lines only."""

SHOWN_NAMES = 5

EXIT_CHECK_INTERVAL_SECONDS = 0.1
"""Seconds of silence after which to look whether the program has ended."""

log = logging.getLogger("socketpool.executable")


class ExecutableVendor(ServiceServer):
    """Runs the program that the service's ``sdk.executable`` names."""

    def __init__(
        self, stream: Stream, workspace: Workspace, limits: SessionLimits, spec: InstanceSpec
    ) -> None:
        super().__init__(stream, workspace, limits)
        self._sdk = spec.require_sdk()
        self._values = spec.values
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._lines = 0
        self._detail: dict[str, Any] = {}

    def transfer(self) -> None:
        """Unpack, run, and pack what changed."""
        incoming = require_upload(self.workspace)
        wipe(self.workspace.members)
        planted = tree.plant(incoming, self.workspace.members, self.limits.archive_size)
        if self.workspace.outgoing is not None:
            tree.overlay(self.workspace.outgoing, self.workspace.members, self.limits.archive_size)
        self.progress(0, len(planted))
        self._run()
        different = tree.compare(self.workspace.members, planted)
        self._refuse("added", different.added, self._sdk.added)
        self._refuse("deleted", different.deleted, self._sdk.deleted)
        with self.workspace.step() as step:
            tree.pack(self.workspace.members, different.changed, planted, step.archive)
            step.outcome = {"members": len(planted), "changed": len(different.changed)}
        wipe(self.workspace.members)
        self.progress(len(planted), len(planted))
        self._detail = step.outcome

    def outcome(self) -> dict[str, Any]:
        """How many members there were and how many changed."""
        return self._detail

    def _run(self) -> None:
        argv = [fill(argument, self._values) for argument in self._sdk.executable or ()]
        environment = os.environ | {variables.LEASE: self.workspace.root.name}
        try:
            process = subprocess.Popen(
                argv,
                cwd=self.workspace.members,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_prepare,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            log.error("can't run", extra={"program": argv[0], "error": error.strerror})
            raise ServiceFailed(
                "the vendor's program can't be run", hint=details_in_log(self.workspace.root.name)
            ) from error
        try:
            self._follow(process)
        finally:
            # Whatever it started and left behind ends with it.
            _kill_group(process.pid)
            process.wait()
        if process.returncode:
            how = how_it_ended(process.returncode)
            lease = self.workspace.root.name
            log.error(
                "program failed",
                extra={"lease": lease, "ended": how, "last_lines": list(self._last)},
            )
            raise ServiceFailed(f"the vendor's program failed ({how})", hint=details_in_log(lease))

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Log what it prints until it ends; the session's own limit ends it when it doesn't."""
        assert process.stdout is not None  # noqa: S101 - how it was started
        pending = b""
        with selectors.DefaultSelector() as selector, process.stdout as output:
            selector.register(output, selectors.EVENT_READ)
            while True:
                if selector.select(EXIT_CHECK_INTERVAL_SECONDS):
                    chunk = os.read(output.fileno(), 65536)
                    if not chunk:
                        break
                    *lines, pending = (pending + chunk).split(b"\n")
                    if len(pending) > LINE_BYTES:
                        lines, pending = [*lines, pending], b""
                    for line in lines:
                        self._keep(line)
                elif process.poll() is not None:
                    break  # something it left behind may hold the pipe open for ever
        if pending:
            self._keep(pending)
        process.wait()

    def _keep(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode(errors="replace").rstrip()
        self._last.append(text)
        self._lines += 1
        if self._lines <= LOGGED_LINES:
            log.info("output", extra={"lease": self.workspace.root.name, "line": text})
        elif self._lines == LOGGED_LINES + 1:
            log.warning("output cut", extra={"lease": self.workspace.root.name})

    def _refuse(self, what: str, names: list[bytes], rule: str) -> None:
        if not names or rule == "ignore":
            return
        some = ", ".join(show(name) for name in names[:SHOWN_NAMES])
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        raise ServiceFailed(
            f"the vendor's program {what} what can't be given back: {some}{more}",
            hint=f"its operator can allow it: {what}: ignore in service.yml",
        )


def _prepare() -> None:
    die_with_parent(signal.SIGKILL)
    reset_signals()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
