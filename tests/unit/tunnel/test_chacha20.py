"""chacha20-poly1305@openssh.com: what is sealed can be opened, and nothing else."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from socketpool.tunnel.chacha20 import KEY_BYTES, ChaCha20Poly1305

CIPHER = ChaCha20Poly1305(bytes(range(KEY_BYTES)))


@given(body=st.binary(min_size=8, max_size=300), number=st.integers(0, 0xFFFFFFFF))
def test_what_is_sealed_can_be_opened_with_its_number(body: bytes, number: int) -> None:
    length = len(body).to_bytes(4, "big")
    sealed = CIPHER.seal(number, length + body)
    assert CIPHER.crypt_length(number, sealed[:4]) == length
    assert CIPHER.open(number, sealed[:4], memoryview(sealed)[4:]) == body
    with pytest.raises(InvalidTag):
        CIPHER.open((number + 1) & 0xFFFFFFFF, sealed[:4], memoryview(sealed)[4:])


@pytest.mark.parametrize("at", [0, 3, 4, 20, -1])
def test_what_was_changed_on_its_way_is_refused(at: int) -> None:
    sealed = bytearray(CIPHER.seal(7, (16).to_bytes(4, "big") + bytes(16)))
    sealed[at] ^= 1
    with pytest.raises(InvalidTag):
        CIPHER.open(7, bytes(sealed[:4]), memoryview(sealed)[4:])
