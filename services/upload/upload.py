"""upload: takes in one archive for the lease."""

from __future__ import annotations

from typing import Any

from socketpool.errors import ArchiveError
from socketpool.rsi import ServiceServer
from socketpool.rsi.members import check


class Upload(ServiceServer):
    """Receives the archive; a repeated upload starts the lease's work afresh."""

    def transfer(self) -> None:
        """Receive the archive, judge it, and forget what was made of an earlier one."""
        incoming = self.workspace.incoming
        self.workspace.forget_steps()
        self.sha256 = self.write_file_block(incoming)
        try:
            self.members = check(incoming, self.limits.archive_size)
        except ArchiveError:
            incoming.unlink()
            raise

    def outcome(self) -> dict[str, Any]:
        """What arrived."""
        size = self.workspace.incoming.stat().st_size
        return {"members": self.members, "bytes": size, "sha256": self.sha256}
