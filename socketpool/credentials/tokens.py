"""Lease tokens: what a client shows to a service before anything else.

A token is the lease's id and generation, signed with a key that only the pool's host knows.  The
signature says that the pool server made it; whether the lease is still alive is told by the fence.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from itsdangerous import BadData, Signer

from socketpool.errors import ConfigError, NotAuthorised

if TYPE_CHECKING:
    from pathlib import Path

MAX_TOKEN_CHARACTERS = 512


class LeaseClaim(NamedTuple):
    """What a token says."""

    lease: str
    generation: int


class LeaseTokens:
    """Makes and checks lease tokens with one key."""

    def __init__(self, key: str) -> None:
        # The key is derived once here, not at each signature.
        self._signer = Signer(
            hmac.digest(key.encode(), b"socketpool.lease", hashlib.sha256),
            digest_method=hashlib.sha256,
            key_derivation="none",
        )

    def sign(self, claim: LeaseClaim) -> str:
        """The token of a lease."""
        return self._signer.sign(f"{claim.lease}.{claim.generation}").decode()

    def verify(self, token: str) -> LeaseClaim:
        """What the token says; raises :class:`NotAuthorised` unless this key signed it."""
        try:
            if len(token) > MAX_TOKEN_CHARACTERS:
                raise BadData("too long")
            lease, _, generation = self._signer.unsign(token).decode().rpartition(".")
            return LeaseClaim(lease, int(generation))
        except (BadData, ValueError):
            raise NotAuthorised("the lease token is not valid") from None


def read_secret(path: Path) -> str:
    """A secret kept in a file; raises :class:`ConfigError`."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a token"
        raise ConfigError(f"{path}: {reason}") from None
    return parse_secret(text, str(path))


def parse_secret(text: str, where: str) -> str:
    """The secret that a file holds; an error tells where it was from, not what it was."""
    secret = text.strip()
    if re.fullmatch(r"[A-Za-z0-9_-]{16,512}", secret) is None:
        raise ConfigError(
            f"{where}: not a token", hint="copy the pool's token file again, as it is"
        )
    return secret


def ensure_secret(path: Path) -> str:
    """The secret in the file, made at first use and readable by this user alone."""
    temporary = path.with_name(path.name + ".new")
    if not path.exists():
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as out:  # noqa: PTH123 - a descriptor
            out.write(secrets.token_urlsafe(32) + "\n")
        temporary.replace(path)
    return read_secret(path)
