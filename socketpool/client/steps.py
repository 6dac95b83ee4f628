"""Which orders of services make sense in one run.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NEEDS = {"upload": "", "vendor": "upload", "download": "vendor"}
"""Each kind of client portion, and the kind that must have run before it."""


def check_order(services: Sequence[str], kinds: Mapping[str, str | None]) -> None:
    """Raise :class:`UsageError` unless the services exist and can be run in this order.

    ``kinds`` maps each service of the pool to the kind of its client portion, if it has one.
    """
    for name in services:
        if name not in kinds:
            raise UsageError(
                f"no service is named {name!r}", hint="known services: " + ", ".join(sorted(kinds))
            )
    done: set[str] = set()
    for name in services:
        kind = kinds[name]
        if kind not in NEEDS:
            raise UsageError(
                f"{name!r} is a plain program, with no client portion to run",
                hint=f"to use it, lease it: socketpool lease {name}",
            )
        if NEEDS[kind] and NEEDS[kind] not in done:
            raise UsageError(
                f"{name!r} can't run yet: it needs {_a(NEEDS[kind])} before it",
                hint="the usual order is: upload vendor download",
            )
        done.add(kind)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind} step"
