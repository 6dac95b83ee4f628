"""The kinds of readiness: one module for each kind that has a probe.

The module of the kind ``http`` is ``probe_http``, that of ``tcp-banner`` would be
``probe_tcp_banner``; each has a coroutine ``probe(target) -> bool``, which may be cancelled and may
raise OSError.  The kinds themselves and their settings are declared in
`socketpool.config.models.Readiness`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from socketpool.config.settings import Service

WITHOUT_PROBE = frozenset({"listen", "notify"})
"""The kinds that tell of an instance without asking it anything."""


class Target(NamedTuple):
    """What a probe is for: the instance of a service at this address.

    ``specification`` is the file with which the service's instances are started.
    """

    service: Service
    host: str
    port: int
    specification: Path


def probe_of(kind: str) -> Callable[[Target], Awaitable[bool]] | None:
    """The probe of a kind of readiness, None where there is none."""
    if kind in WITHOUT_PROBE:
        return None
    module = import_module(f"{__name__}.probe_{kind.replace('-', '_')}")
    return cast("Callable[[Target], Awaitable[bool]]", module.probe)
