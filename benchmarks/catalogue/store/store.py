"""store: takes a file and gives it back, to measure what blocks cost and nothing else."""

from __future__ import annotations

from contextlib import nullcontext

from nohash import without_digests

from socketpool.rsi import ServiceServer


class Store(ServiceServer):
    """One line says in which direction, and whether to do without digests."""

    def transfer(self) -> None:
        """Receive the file, send it, or do nothing."""
        kept = self.workspace.root / "kept"
        direction, _, manner = self.read_line_block().partition(" ")
        with without_digests() if manner else nullcontext():
            match direction:
                case "upload":
                    self.write_file_block(kept)
                case "download":
                    self.send_file_block(kept)
