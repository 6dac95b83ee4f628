"""Files of keys: which public key a file is about, and the private key in it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bcrypt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from socketpool.tunnel import chacha20
from socketpool.tunnel.sshdata import Reader, key_type, mpint, string

if TYPE_CHECKING:
    from pathlib import Path

    PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MAX_BYTES = 1 << 20
MAGIC = b"openssh-key-v1\0"
BEGIN, END = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
SECURITY_KEY = "sk-"
"""The types of keys whose private half is in a FIDO token begin with it."""

_RSA_HASHES = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
_CURVE_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}


class KeyUnusable(Exception):
    """Why a file gives no private key, in words."""


class PassphraseNeeded(Exception):
    """The private key is encrypted, and no passphrase was given or a wrong one."""


def public_blob(path: Path) -> bytes | None:
    """The public key that a file, or the one beside it, is about; None when neither tells."""
    for candidate in (path, path.with_name(path.name + ".pub")):
        try:
            data = _read(candidate)
        except OSError:
            continue
        with suppress(ValueError, binascii.Error):
            return _envelope(data).public if BEGIN in data else _public_line(data)
    return None


def load_private(path: Path, passphrase: str | None) -> PrivateKey:
    """The private key of a file; raises PassphraseNeeded, KeyUnusable or OSError."""
    _check_mode(path)
    data = _read(path)
    secret = passphrase.encode() if passphrase else None
    try:
        if BEGIN in data:
            key = _load_openssh(data, secret)
        elif data.startswith(b"PuTTY-User-Key-File"):
            raise KeyUnusable("a key of PuTTY; `puttygen KEY -O private-openssh` converts it")
        else:
            if b"ENCRYPTED" in data and secret is None:
                raise PassphraseNeeded
            key = load_pem_private_key(data, secret)
    except UnsupportedAlgorithm as error:
        raise KeyUnusable(str(error)) from None
    except (ValueError, TypeError) as error:
        if secret is not None:
            raise PassphraseNeeded from None
        raise KeyUnusable(f"not a private key ({error})") from None
    if not isinstance(
        key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    ):
        raise KeyUnusable("a key of a type that SSH has given up")
    return key


def blob_of(key: PrivateKey) -> bytes:
    """The public key of a private one, as SSH sends it."""
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(text.split()[1])


def sign(key: PrivateKey, data: bytes, algorithm: str) -> bytes:
    """The signature, as SSH sends it."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.sign(data)
    elif isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(data, padding.PKCS1v15(), _RSA_HASHES[algorithm])
    else:
        der = key.sign(data, ec.ECDSA(_CURVE_HASHES[key.curve.key_size]))
        raw = b"".join(mpint(each) for each in decode_dss_signature(der))
    return string(algorithm) + string(raw)


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What surrounds the private key in OpenSSH's own format."""

    cipher: str
    kdf: str
    kdf_options: bytes
    public: bytes
    private: bytes
    """Encrypted by the cipher."""
    tag: bytes


def _envelope(data: bytes) -> _Envelope:
    start = data.index(BEGIN) + len(BEGIN)
    raw = base64.b64decode(data[start : data.index(END, start)])
    if not raw.startswith(MAGIC):
        raise ValueError("not in OpenSSH's format")
    reader = Reader(raw[len(MAGIC) :])
    cipher, kdf, options = reader.text(), reader.text(), reader.string()
    if reader.uint32() != 1:
        raise ValueError("not exactly one key")
    return _Envelope(cipher, kdf, options, reader.string(), reader.string(), reader.rest())


def _load_openssh(data: bytes, passphrase: bytes | None) -> object:
    envelope = _envelope(data)
    if key_type(envelope.public).startswith(SECURITY_KEY):
        raise KeyUnusable("a key of a FIDO token; load it into your agent: ssh-add")
    if envelope.cipher == "none":
        return load_ssh_private_key(data, None)
    if passphrase is None:
        raise PassphraseNeeded
    if envelope.cipher != chacha20.NAME:
        return load_ssh_private_key(data, passphrase)
    options = Reader(envelope.kdf_options)
    salt, rounds = options.string(), options.uint32()
    secret = bcrypt.kdf(passphrase, salt, chacha20.KEY_BYTES, rounds, ignore_few_rounds=True)
    plain = chacha20.open_message(secret[:32], envelope.private, envelope.tag)
    none = string("none") + string("none") + string(b"") + (1).to_bytes(4, "big")
    body = base64.encodebytes(MAGIC + none + string(envelope.public) + string(plain))
    return load_ssh_private_key(BEGIN + b"\n" + body + END + b"\n", None)


def _public_line(data: bytes) -> bytes:
    fields = data.split(None, 2)
    if len(fields) < 2:
        raise ValueError("no public key")
    blob = base64.b64decode(fields[1], validate=True)
    if key_type(blob).encode() != fields[0]:
        raise ValueError("no public key")
    return blob


def _check_mode(path: Path) -> None:
    found = path.stat()
    if found.st_uid == os.getuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyUnusable(
            f"ignored, since other accounts may read it (mode {found.st_mode & 0o777:03o}; "
            "chmod 600)"
        )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES)
