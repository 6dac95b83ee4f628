"""Which orders of services make sense in one run.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = ("upload", "vendor", "download")
"""The kinds of client portions."""

ORDER_HINT = "the usual order is: upload vendor download"


def check_order(services: Sequence[str], kinds: Mapping[str, str | None]) -> None:
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
    done: dict[str, str] = {}
    """The last step so far of each kind, by its name."""
    for name in services:
        kind = kinds[name]
        match kind:
            case "upload":
                _check_upload(name, done)
            case "vendor":
                _check_vendor(name, done)
            case "download":
                _check_download(name, done)
            case _:
                raise UsageError(
                    f"{name!r} is a plain program, with no client portion to run",
                    hint=f"to use it, lease it: socketpool lease {name}",
                )
        done[kind] = name
    if "upload" in done and "vendor" not in done:
        raise UsageError(
            f"nothing uses what {done['upload']!r} sends: no vendor step comes after it",
            hint=ORDER_HINT,
        )


def _check_upload(name: str, done: Mapping[str, str]) -> None:
    if "upload" not in done:
        return
    if "vendor" in done:
        problem = f"it discards what {done['vendor']!r} did before it"
    else:
        problem = f"nothing uses what {done['upload']!r} sends before it"
    raise UsageError(f"{name!r} can't run here: {problem}", hint=ORDER_HINT)


def _check_vendor(name: str, done: Mapping[str, str]) -> None:
    if "upload" not in done:
        raise UsageError(f"{name!r} can't run yet: it needs an upload before it", hint=ORDER_HINT)
    if "download" in done:
        raise UsageError(
            f"nothing fetches what {name!r} does: it comes after the download", hint=ORDER_HINT
        )


def _check_download(name: str, done: Mapping[str, str]) -> None:
    if "vendor" not in done:
        raise UsageError(
            f"{name!r} can't run yet: it needs a vendor step before it", hint=ORDER_HINT
        )
    if "download" in done:
        raise UsageError(
            f"{name!r} has nothing to fetch: {done['download']!r} fetches everything before it",
            hint=ORDER_HINT,
        )
