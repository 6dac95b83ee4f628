"""RevokedHostKeys: lists of keys, and key revocation lists (PROTOCOL.krl of OpenSSH).

Whatever can't be read or understood is refused: such a file exists to keep a key from being used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING

from socketpool.errors import ConfigError
from socketpool.tunnel.sshdata import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from socketpool.tunnel.certificates import Certificate

MAX_FILE_BYTES = 64 << 20
MAGIC = b"SSHKRL\n\0"
_CERTIFICATES, _KEYS, _SHA1, _SIGNATURE, _SHA256, _EXTENSION = 1, 2, 3, 4, 5, 255


def find_revocation(
    paths: Sequence[Path], key: bytes, certificate: Certificate | None
) -> Path | None:
    """The file that revokes a key, or the certificate that is shown for it, or its authority.

    Raises ConfigError for a file that can't be read: nothing may be trusted then.
    """
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"RevokedHostKeys {path}: {error.strerror}",
                hint="without it no host's key can be trusted, as with ssh",
            ) from None
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"RevokedHostKeys {path}: larger than {MAX_FILE_BYTES} bytes")
        try:
            revoked = _revokes(data, key, certificate)
        except ValueError as error:
            raise ConfigError(
                f"RevokedHostKeys {path}: it can't be understood: {error}",
                hint="without it no host's key can be trusted",
            ) from None
        if revoked:
            return path
    return None


def _revokes(data: bytes, key: bytes, certificate: Certificate | None) -> bool:
    keys = [key] if certificate is None else [certificate.plain, certificate.authority]
    if not data.startswith(MAGIC):
        return any(each in keys for each in _listed(data))
    reader = Reader(data[len(MAGIC) :])
    if reader.uint32() != 1:
        raise ValueError("a revocation list of another version")
    reader.take(24)  # version of the list, date, flags
    reader.string()  # reserved
    reader.string()  # comment
    digests = {
        _KEYS: set(keys),
        _SHA1: {hashlib.sha1(each, usedforsecurity=False).digest() for each in keys},
        _SHA256: {hashlib.sha256(each).digest() for each in keys},
    }
    while not reader.is_done:
        kind = reader.byte()
        if kind == _SIGNATURE:
            return False  # nothing follows but signatures, which OpenSSH doesn't demand either
        section = Reader(reader.string())
        if kind in digests:
            while not section.is_done:
                if section.string() in digests[kind]:
                    return True
        elif kind == _CERTIFICATES:
            if certificate is not None and _revokes_certificate(section, certificate):
                return True
        elif kind != _EXTENSION or _is_critical(section):
            raise ValueError(f"a section of the unknown type {kind}")
    return False


def _revokes_certificate(section: Reader, certificate: Certificate) -> bool:
    authority = section.string()
    section.string()  # reserved
    if authority and authority != certificate.authority:
        return False
    while not section.is_done:
        if _names(section.byte(), Reader(section.string()), certificate):
            return True
    return False


def _names(kind: int, entries: Reader, certificate: Certificate) -> bool:
    """Whether one part of a section is about the certificate."""
    serial = certificate.serial
    match kind:
        case 32:  # serial numbers
            while not entries.is_done:
                if entries.uint64() == serial:
                    return True
            return False
        case 33:  # a range of them
            return entries.uint64() <= serial <= entries.uint64()
        case 34:  # a bitmap of them
            first, bits = entries.uint64(), entries.mpint()
            return serial >= first and bool(bits >> (serial - first) & 1)
        case 35:  # key ids
            while not entries.is_done:
                if entries.string() == certificate.key_id:
                    return True
            return False
        case 57 if not _is_critical(entries):  # an extension
            return False
    raise ValueError(f"a certificate section of the unknown type {kind}")


def _is_critical(extension: Reader) -> bool:
    extension.string()  # its name
    return extension.boolean()


def _listed(data: bytes) -> list[bytes]:
    """The keys of a file that has one on each line, options before it or not."""
    keys = []
    for line in data.splitlines():
        fields = line.split()
        if not fields or fields[0].startswith(b"#"):
            continue
        for kind, text in pairwise(fields):
            try:
                blob = base64.b64decode(text, validate=True)
                found = Reader(blob).string() == kind
            except (ValueError, binascii.Error):
                continue
            if found:
                keys.append(blob)
                break
        else:
            raise ValueError("a line that holds no public key")
    return keys
