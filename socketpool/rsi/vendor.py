"""The base of an operator's vendor: members in as files, what changed goes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from socketpool.rsi import members
from socketpool.rsi.interfaces import VendorInterface
from socketpool.rsi.runner.workrecord import WatchedMembers
from socketpool.rsi.service import ServiceServer, require_upload
from socketpool.system.wiping import wipe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REPORT_BYTES = 32 << 10
"""A report has to fit into the line block of the verdict, as JSON."""


class VendorServer(ServiceServer, VendorInterface):
    """Override `transfer`: read and rewrite the files in `members`, then return.

    ``members`` maps each member's name in the client's archive to a file of the workspace.  The
    name is data, shown and compared but never used as a path; the file has a name of ours with
    the member's suffix.  What `transfer` leaves changed goes back to the client.
    """

    members: Mapping[str, Path]

    def work(self) -> None:
        """Unpack, `transfer`, pack what changed."""
        incoming = require_upload(self.workspace)
        self._lines: list[str] = []
        self._outcome: dict[str, Any] = {}
        wipe(self.workspace.members)
        unpacked = members.unpack(incoming, self.workspace.members, self.limits.archive_size)
        if self.workspace.outgoing is not None:
            members.overlay(self.workspace.outgoing, unpacked, self.limits.archive_size)
        watched = WatchedMembers({name: m.path for name, m in unpacked.items()})
        self.members = watched
        self.transfer()
        watched.end_watch()
        with self.workspace.step() as step:
            changed = members.pack_changed(unpacked, step.archive)
            step.outcome = {"members": len(unpacked), "changed": changed, "report": self._lines}
        wipe(self.workspace.members)
        self._outcome = step.outcome

    def outcome(self) -> dict[str, Any]:
        """How many members there were, how many differ from the upload, and the report."""
        return self._outcome

    def report(self, line: str) -> None:
        """Add a line to what the client's summary shows of this step; too many are left out."""
        lines = [*self._lines, line[:500]]
        if len(lines) <= 50 and len(json.dumps(lines)) <= REPORT_BYTES:
            self._lines = lines
