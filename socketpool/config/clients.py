"""The ``clients:`` section of a pool's file: who may lease what, and how much of it."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from socketpool.config.fields import Duration, ServiceName, Strict
from socketpool.config.values import SERVICE_NAME
from socketpool.core.permissions import Client


def check_client_name(name: str) -> str:
    """Raise ValueError unless the name can be a client's."""
    if SERVICE_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} can't name a client: use lower-case letters, digits and -, "
            "31 characters at most, starting with a letter or digit"
        )
    return name


ClientName = Annotated[str, BeforeValidator(lambda v: check_client_name(str(v)))]

TokenHash = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A token is random and long, so that one round of a plain hash keeps it secret."""

_Quota = Annotated[int, Field(strict=True, ge=1, le=100_000)]


def token_hash(token: str) -> str:
    """The hash of a token, as the pool's file stores it."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


class ClientSettings(Strict):
    """One client of the pool."""

    token: TokenHash
    services: tuple[ServiceName, ...] | None = None
    leases: _Quota | None = None
    waiting: _Quota | None = None
    ttl: Duration | None = None

    def named(self, name: str) -> Client:
        """The client's permissions, as the pool checks them."""
        services = None if self.services is None else frozenset(self.services)
        return Client(name, services, self.leases, self.waiting, self.ttl)
