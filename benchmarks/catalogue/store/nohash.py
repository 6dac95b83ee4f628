"""Blocks without SHA-256, to measure what that costs: every file is taken for undamaged."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from socketpool.protocol import blocks, transfer

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoDigest:
    """All files have the same."""

    def update(self, data: object) -> None:
        """Cost nothing."""

    def digest(self) -> bytes:
        """The same for all."""
        return bytes(32)


class NoHashes:
    """Takes the place of hashlib."""

    sha256 = NoDigest


class NoReading(NoDigest):
    """Takes the place of the sender's digest, which reads the file once more."""

    def __init__(self, source: object) -> None:
        """Leave it alone."""

    def result(self) -> bytes:
        """The same for all."""
        return self.digest()


@contextmanager
def without_digests() -> Iterator[None]:
    """In this process, for the length of a ``with`` block."""
    with (
        patch.object(blocks, "hashlib", NoHashes),
        patch.object(transfer, "Digest", NoReading),
    ):
        yield
