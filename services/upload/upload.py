"""upload: takes in one archive for the lease."""

from __future__ import annotations

from typing import Any

from socketpool.rsi import ServiceServer


class Upload(ServiceServer):
    """Receives the archive; a repeated upload starts the lease's work afresh."""

    def transfer(self) -> None:
        """Receive the archive and forget what was made of an earlier one."""
        self.sha256 = self.write_file_block(self.workspace.incoming)
        self.workspace.outgoing.unlink(missing_ok=True)

    def outcome(self) -> dict[str, Any]:
        """What arrived."""
        return {"bytes": self.workspace.incoming.stat().st_size, "sha256": self.sha256}
