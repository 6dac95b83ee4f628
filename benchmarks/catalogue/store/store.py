"""store: takes a file and gives it back, to measure what blocks cost and nothing else."""

from __future__ import annotations

from socketpool.rsi import ServiceServer


class Store(ServiceServer):
    """One line says in which direction."""

    def transfer(self) -> None:
        """Receive the file, send it, or do nothing."""
        kept = self.workspace.root / "kept"
        match self.read_line_block():
            case "upload":
                self.write_file_block(kept)
            case "download":
                self.send_file_block(kept)
