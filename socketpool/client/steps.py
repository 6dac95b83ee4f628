"""Which orders of services make sense in one run.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDER_HINT = f"the usual order is: {' '.join(ServiceKind)}"


def check_order(services: Sequence[str], kinds: Mapping[str, ServiceKind | None]) -> None:
    """Raise :class:`UsageError` unless the services exist and can be run in this order.

    ``kinds`` maps each service of the pool to the kind of its client portion, if it has one.  An
    order makes sense when every step has what it needs and no step's result is lost: one upload,
    then vendor steps, as many as wanted, of one service or of several, and at most one download,
    which is the last step.  Without a download the vendor steps' reports are the result.
    """
    for name in services:
        if name not in kinds:
            raise UsageError(
                f"no service is named {name!r}", hint="known services: " + ", ".join(sorted(kinds))
            )
    done: dict[ServiceKind, str] = {}
    """The last step so far of each kind, by its name."""
    for name in services:
        kind = kinds[name]
        if kind is None:
            raise UsageError(
                f"{name!r} is a plain program, with no client portion to run",
                hint=f"to use it, lease it: socketpool lease {name}",
            )
        needs = kind.facts.needs
        if needs is not None and needs not in done:
            raise UsageError(
                f"{name!r} can't run yet: it needs {needs.facts.step} before it", hint=ORDER_HINT
            )
        match kind:
            case ServiceKind.UPLOAD:
                _check_upload(name, done)
            case ServiceKind.VENDOR:
                _check_vendor(name, done)
            case ServiceKind.DOWNLOAD:
                _check_download(name, done)
        done[kind] = name
    if ServiceKind.UPLOAD in done and ServiceKind.VENDOR not in done:
        raise UsageError(
            f"nothing uses what {done[ServiceKind.UPLOAD]!r} sends: no vendor step comes after it",
            hint=ORDER_HINT,
        )


def _check_upload(name: str, done: Mapping[ServiceKind, str]) -> None:
    if ServiceKind.UPLOAD not in done:
        return
    if ServiceKind.VENDOR in done:
        problem = f"it discards what {done[ServiceKind.VENDOR]!r} did before it"
    else:
        problem = f"nothing uses what {done[ServiceKind.UPLOAD]!r} sends before it"
    raise UsageError(f"{name!r} can't run here: {problem}", hint=ORDER_HINT)


def _check_vendor(name: str, done: Mapping[ServiceKind, str]) -> None:
    if ServiceKind.DOWNLOAD in done:
        raise UsageError(
            f"nothing fetches what {name!r} does: it comes after the download", hint=ORDER_HINT
        )


def _check_download(name: str, done: Mapping[ServiceKind, str]) -> None:
    if ServiceKind.DOWNLOAD in done:
        before = done[ServiceKind.DOWNLOAD]
        raise UsageError(
            f"{name!r} has nothing to fetch: {before!r} fetches everything before it",
            hint=ORDER_HINT,
        )
