"""Certificates of hosts (PROTOCOL.certkeys of OpenSSH): who signed them, and for whom."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from socketpool.tunnel.sshdata import Reader, key_type

CERTIFIED = "-cert-v01@openssh.com"
_FIELDS = {"ssh-rsa": 2, "ssh-ed25519": 1, "ecdsa": 2, "sk-ssh-ed25519": 2, "sk-ecdsa": 3}
"""How many fields the public key has in the certificate, by the beginning of its type."""


def plain_type(kind: str) -> str:
    """The type of the key that a certificate of this type is for."""
    plain = kind.removesuffix(CERTIFIED)
    return plain + "@openssh.com" if plain.startswith("sk-") and plain != kind else plain


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says; whether that is true is told by `refusal`."""

    blob: bytes
    plain: bytes
    """The public key that it is for."""
    authority: bytes
    """The public key that signed it."""
    signature_algorithm: str
    serial: int
    key_id: bytes

    @classmethod
    def parse(cls, blob: bytes) -> Certificate:
        """Raises ValueError for what is no certificate."""
        kind = key_type(blob)
        if not kind.endswith(CERTIFIED):
            raise ValueError(f"{kind} is no certificate")
        count = next((n for start, n in _FIELDS.items() if kind.startswith(start)), 0)
        if not count:
            raise ValueError(f"a certificate of the unknown type {kind}")
        reader = Reader(blob)
        reader.string()
        reader.string()  # the nonce
        name = plain_type(kind).encode()
        plain = _string(name) + b"".join(_string(reader.string()) for _ in range(count))
        serial = reader.uint64()
        reader.uint32()  # for a user or a host
        key_id = reader.string()
        reader.string()  # principals
        reader.take(16)  # valid from, valid to
        for _ in range(3):
            reader.string()  # critical options, extensions, reserved
        authority = reader.string()
        key_type(authority)
        signature = Reader(reader.string())
        return cls(blob, plain, authority, signature.text(), serial, key_id)


def refusal(
    certificate: Certificate,
    host: str,
    algorithms: tuple[str, ...] | None,
    now: float | None = None,
) -> str | None:
    """Why the certificate doesn't stand for the host, in words; None when it does.

    That its authority is trusted is for the caller to say.
    """
    kind = key_type(certificate.blob)
    try:
        found = load_ssh_public_identity(f"{kind} ".encode() + b64encode(certificate.blob))
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"it can't be read: {error}"
    if not isinstance(found, SSHCertificate):
        return "it is no certificate"
    allowed = algorithms or SIGNATURES
    if certificate.signature_algorithm not in allowed:
        return f"it is signed with {certificate.signature_algorithm}"
    try:
        found.verify_cert_signature()
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return "its signature is wrong"
    seconds = time.time() if now is None else now
    principals = [each.decode("utf-8", "replace") for each in found.valid_principals]
    if found.type is not SSHCertificateType.HOST:
        return "it is for a user"
    if seconds < found.valid_after:
        return "it is not valid yet"
    if seconds >= found.valid_before:
        return "it has expired"
    if found.critical_options:
        return "it has a critical option, which no host's may have"
    if principals and host.lower() not in principals:
        return f"it is for {', '.join(principals)}"
    return None


SIGNATURES = (
    *("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
"""Algorithms by which an authority may sign, unless CASignatureAlgorithms says otherwise."""


def rsa_bits(blob: bytes) -> int | None:
    """The size of an RSA key; None for others, and for what is malformed."""
    reader = Reader(blob)
    try:
        if reader.text() != "ssh-rsa":
            return None
        reader.mpint()
        return reader.mpint().bit_length()
    except ValueError:
        return None


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
