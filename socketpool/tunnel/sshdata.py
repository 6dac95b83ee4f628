"""The data types of the SSH protocol (RFC 4251, section 5), read and written.  Pure."""

from __future__ import annotations

import struct


class Reader:
    """Takes values from bytes; raises ValueError when they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self._at + size
        if end > len(self._data):
            raise ValueError("data that is cut short")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def byte(self) -> int:
        """An integer of 8 bits."""
        return self.take(1)[0]

    def uint32(self) -> int:
        """An integer of 32 bits."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """An integer of 64 bits."""
        return int.from_bytes(self.take(8), "big")

    def boolean(self) -> bool:
        """A truth value."""
        return self.byte() != 0

    def string(self) -> bytes:
        """Bytes with their length before them."""
        return self.take(self.uint32())

    def text(self) -> str:
        """A string that is meant for people or is a name, in whatever encoding."""
        return self.string().decode("utf-8", "replace")

    def mpint(self) -> int:
        """An integer of any length."""
        return int.from_bytes(self.string(), "big", signed=True)

    def names(self) -> list[str]:
        """A list of names."""
        text = self.text()
        return text.split(",") if text else []


def string(data: bytes | str) -> bytes:
    """With its length before it."""
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(raw)) + raw


def mpint(value: int) -> bytes:
    """An integer of any length that isn't negative."""
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def boolean(*, value: bool) -> bytes:
    """A truth value."""
    return b"\1" if value else b"\0"


def key_type(blob: bytes) -> str:
    """The type of a public key or certificate; raises ValueError."""
    return Reader(blob).text()
