"""Lease tokens and the secrets in files."""

from __future__ import annotations

import base64
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from socketpool.credentials.tokens import LeaseClaim, LeaseTokens, ensure_secret, read_secret
from socketpool.errors import ConfigError, NotAuthorised

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = LeaseTokens("a key")
CLAIM = LeaseClaim("abc123", 42)


@given(st.text("abcdef0123456789", min_size=1, max_size=64), st.integers(1, 1 << 62))
def test_what_was_signed_is_what_the_token_says(lease: str, generation: int) -> None:
    claim = LeaseClaim(lease, generation)
    assert TOKENS.verify(TOKENS.sign(claim)) == claim


def test_a_token_is_safe_in_a_url_and_short() -> None:
    token = TOKENS.sign(LeaseClaim("f" * 64, 1 << 62))
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert len(token) <= 256


def test_a_token_cut_anywhere_is_not_valid() -> None:
    token = TOKENS.sign(CLAIM)
    for length in range(len(token)):
        with pytest.raises(NotAuthorised):
            TOKENS.verify(token[:length])


def test_a_token_with_any_character_changed_is_not_valid() -> None:
    token = TOKENS.sign(CLAIM)
    for at in range(len(token) - 1):  # the last has bits that base64 does not use
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(NotAuthorised):
            TOKENS.verify(changed)


@pytest.mark.parametrize(
    "token",
    [
        LeaseTokens("another key").sign(CLAIM),
        LeaseTokens("").sign(CLAIM),
        URLSafeSerializer("a key").dumps(list(CLAIM)),
        URLSafeSerializer("a key", salt="socketpool.lease").dumps(list(CLAIM)),
        base64.urlsafe_b64encode(b'["abc123",42]').decode(),
        base64.urlsafe_b64encode(b'["abc123",42]').decode() + ".",
        "",
        ".",
        "...",
        "x" * 1_000_000,
        TOKENS.sign(CLAIM) + " ",
        "\0",
        "é.ü",
        "\ud800",
    ],
    ids=lambda token: token[:12].encode(errors="replace").decode(),
)
def test_a_token_that_this_key_did_not_sign_is_not_valid(token: str) -> None:
    with pytest.raises(NotAuthorised, match="not valid"):
        TOKENS.verify(token)


def test_a_token_too_long_is_not_valid_even_if_signed() -> None:
    with pytest.raises(NotAuthorised):
        TOKENS.verify(TOKENS.sign(LeaseClaim(random.Random(1).randbytes(1000).hex(), 1)))


@pytest.mark.parametrize("payload", ["", "x", "x.", "x.y", ".", "x.1e3", "x.1 2", "\ud7ff", "x.-"])
def test_a_signed_payload_of_another_shape_is_not_valid(payload: str) -> None:
    token = TOKENS._signer.sign(payload).decode()
    with pytest.raises(NotAuthorised):
        TOKENS.verify(token)


def test_the_error_does_not_repeat_the_token() -> None:
    with pytest.raises(NotAuthorised) as caught:
        TOKENS.verify("c2VjcmV0.c2VjcmV0")
    assert "c2VjcmV0" not in f"{caught.value.message}{caught.value.hint}"


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret = ensure_secret(tmp_path / "token")
    finally:
        os.umask(before)
    assert ensure_secret(tmp_path / "token") == secret == read_secret(tmp_path / "token")
    assert len(secret) >= 40
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_two_secrets_differ(tmp_path: Path) -> None:
    assert ensure_secret(tmp_path / "a") != ensure_secret(tmp_path / "b")


def test_a_crash_while_making_it_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "token.new").write_text("half")
    assert ensure_secret(tmp_path / "token") != "half"


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe", "sécret".encode()])
def test_a_file_without_a_secret_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        read_secret(tmp_path / "token")


def test_a_file_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "token")
