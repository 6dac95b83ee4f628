"""How a program learns where its leased services are: environment variables.  Pure.

    REDIS_HOST=127.0.0.1  REDIS_PORT=21007  REDIS_URL=redis://127.0.0.1:21007/0
    SOCKETPOOL_LEASE=4f1c0d2e9b7a6853

The second instance of a service in one lease has ``REDIS_2_HOST`` and so on.  The lease's token is
not among them: environments are shown to everybody who may look at a process.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from socketpool import variables
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Reachable(Protocol):
    """A service that is reached somewhere; `LeasedService` is one."""

    @property
    def service(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def url(self) -> str: ...


def lease_environment(lease_id: str, services: Iterable[Reachable]) -> dict[str, str]:
    """The variables for a program that uses the services of a lease.

    A service that is reached at another place than the pool says, through a tunnel, is to be
    given with that place's host and port.  Raises UsageError as `variable_prefixes` does.
    """
    services = list(services)
    made = {variables.LEASE: lease_id}
    for prefix, service in zip(
        variable_prefixes([s.service for s in services]), services, strict=True
    ):
        made[f"{prefix}_HOST"] = service.host
        made[f"{prefix}_PORT"] = str(service.port)
        made[f"{prefix}_URL"] = service.url
    return made


def variable_prefixes(names: Sequence[str]) -> list[str]:
    """What the variables of each of the services begin with.

    Raises UsageError when two different services would share one: the second ``redis`` and a
    service that is called ``redis-2``.
    """
    seen: Counter[str] = Counter()
    owners: dict[str, str] = {}
    prefixes = []
    for name in names:
        seen[name] += 1
        prefix = name.upper().replace("-", "_")
        if prefix[0].isdigit():  # no shell could name it
            prefix = f"_{prefix}"
        if seen[name] > 1:
            prefix = f"{prefix}_{seen[name]}"
        if prefix in owners:
            raise UsageError(
                f"{owners[prefix]!r} and {name!r} would both be {prefix}_HOST in the environment",
                hint="lease them apart, or rename one of the services",
            )
        owners[prefix] = name
        prefixes.append(prefix)
    return prefixes


def fill_url(form: str, host: str, port: int) -> str:
    """A service's URL from its form; an IPv6 address is bracketed, as URLs want it."""
    bracketed = f"[{host}]" if ":" in host else host
    return form.replace("{host}", bracketed).replace("{port}", str(port))
