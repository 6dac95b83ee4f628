"""Whatever bytes files, agents and hosts give: an error in words, or nothing, and never a crash."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.errors import ConfigError
from socketpool.tunnel.certificates import Certificate, rsa_bits
from socketpool.tunnel.keyfiles import (
    BEGIN,
    END,
    KeyUnusable,
    PassphraseNeeded,
    load_private,
    public_blob,
)
from socketpool.tunnel.revocation import MAGIC, find_revocation
from socketpool.tunnel.sshdata import Reader, key_type, mpint, string

if TYPE_CHECKING:
    from pathlib import Path

ED25519 = "ssh-ed25519-cert-v01@openssh.com"
parts = st.lists(st.binary(max_size=40).map(string) | st.binary(max_size=12), max_size=14).map(
    b"".join
)


@given(data=parts)
def test_a_certificate_is_read_or_refused(data: bytes) -> None:
    for blob in (data, string(ED25519) + data):
        with suppress(ValueError):
            key_type(Certificate.parse(blob).authority)
        rsa_bits(blob)
    rsa_bits(string("ssh-rsa") + data)


@given(data=parts, passphrase=st.none() | st.text(max_size=5))
def test_a_file_of_a_key_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, passphrase: str | None
) -> None:
    path = tmp_path_factory.mktemp("keys") / "key"
    envelope = base64.encodebytes(b"openssh-key-v1\0" + data)
    for content in (
        data,
        BEGIN + b"\n" + envelope + END,
        b"-----BEGIN PRIVATE KEY-----\n" + envelope + b"-----END PRIVATE KEY-----\n",
        b"ssh-ed25519 " + base64.b64encode(data),
        b"PuTTY-User-Key-File-3: " + data,
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        public_blob(path)
        with suppress(KeyUnusable, PassphraseNeeded):
            load_private(path, passphrase)


@given(data=parts)
def test_a_list_of_revocations_is_understood_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("krl") / "revoked"
    head = MAGIC + (1).to_bytes(4, "big") + bytes(24) + string("") + string("")
    for content in (data, MAGIC + data, head + data, head + b"\1" + string(data)):
        path.write_bytes(content)
        with suppress(ConfigError):
            find_revocation([path], b"key", None)


def test_what_a_later_version_may_add_to_a_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    head = MAGIC + (1).to_bytes(4, "big") + bytes(24) + string("") + string("")
    path.write_bytes(head + b"\x63" + string("something new"))
    with pytest.raises(ConfigError, match="can't be understood"):
        find_revocation([path], b"key", None)


@given(number=st.integers(0, 1 << 300))
def test_integers_are_written_as_they_are_read(number: int) -> None:
    assert Reader(mpint(number)).mpint() == number
