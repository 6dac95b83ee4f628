"""chacha20-poly1305@openssh.com (PROTOCOL.chacha20poly1305), which paramiko doesn't have."""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.poly1305 import Poly1305

NAME = "chacha20-poly1305@openssh.com"
KEY_BYTES = 64
TAG_BYTES = 16
_ZERO, _ONE = bytes(8), (1).to_bytes(8, "little")
_POLY_KEY = bytes(32)


def _stream(key: bytes, block: bytes, number: int, data: bytes | memoryview) -> bytes:
    nonce = block + number.to_bytes(8, "big")
    return Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(data)


class ChaCha20Poly1305:
    """Seals and opens packets, whose sequence numbers are their nonces."""

    def __init__(self, key: bytes) -> None:
        """With the 64 bytes of key material that the two sides agreed on."""
        self._main, self._header = key[:32], key[32:]

    def crypt_length(self, number: int, header: bytes | memoryview) -> bytes:
        """The four bytes of a packet's length, encrypted or decrypted."""
        return _stream(self._header, _ZERO, number, header)

    def seal(self, number: int, packet: bytes) -> bytes:
        """A packet, its length first, with its tag."""
        sealed = self.crypt_length(number, packet[:4])
        sealed += _stream(self._main, _ONE, number, packet[4:])
        return sealed + Poly1305.generate_tag(self._tag_key(number), sealed)

    def open(self, number: int, header: bytes, sealed: memoryview) -> bytes:
        """What a packet holds after its length, which is still encrypted; raises InvalidTag."""
        body = sealed[:-TAG_BYTES]
        tag = Poly1305(self._tag_key(number))
        tag.update(header)
        tag.update(body)
        if not hmac.compare_digest(tag.finalize(), sealed[-TAG_BYTES:]):
            raise InvalidTag
        return _stream(self._main, _ONE, number, body)

    def _tag_key(self, number: int) -> bytes:
        return _stream(self._main, _ZERO, number, _POLY_KEY)


def open_message(key: bytes, sealed: bytes, tag: bytes) -> bytes:
    """What is sealed as packet 0 without a length; raises ValueError."""
    made = Poly1305.generate_tag(_stream(key, _ZERO, 0, _POLY_KEY), sealed)
    if not hmac.compare_digest(made, tag):
        raise ValueError("sealed with another key")
    return _stream(key, _ONE, 0, sealed)
