"""undigested: the store without SHA-256, to measure what that costs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "store"))

from store import Store  # noqa: E402, F401 - found by the line above; the service's class

from socketpool.rsi import blocks  # noqa: E402


class NoDigest:
    """Every file has the same."""

    digest_size = 32

    def update(self, data: object) -> None:
        """Cost nothing."""

    def digest(self) -> bytes:
        """The same for all."""
        return bytes(32)


class NoHashes:
    """Takes the place of hashlib."""

    sha256 = NoDigest


blocks.hashlib = NoHashes
