"""The errors that travel from one process to another, and how they are rebuilt on the other side.

An answer of the API and the end of a session name an error by its code; the receiver makes the
very class of it.  Which classes those are is listed here and nowhere else; code, HTTP status and
exit code are attributes of the class.  ``python -m socketpool.errorregistry FILE...`` writes the
tables into the documentation.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from socketpool.archive import refusals as archive
from socketpool.errors import (
    ArchiveError,
    ConfigError,
    FileRefused,
    KeyReused,
    NoCapacity,
    NoSuchLease,
    NoSuchTarget,
    NotAuthorised,
    OperatorOnly,
    QuotaExceeded,
    ServiceCrashed,
    ServiceFailed,
    ServiceForbidden,
    ServiceUnknown,
    SocketpoolError,
    SourceChanged,
    StoreError,
    TimedOut,
    TooLarge,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Row = tuple[str, ...]


class ErrorRegistry:
    """Classes of error that a peer may name by their codes.

    ``fallback`` stands for an error that has no class here, on either side.  A peer can't make us
    raise a class that is not registered, whatever code it sends.
    """

    def __init__(self, *classes: type[SocketpoolError], fallback: type[SocketpoolError]) -> None:
        self.fallback: Final = fallback
        self.classes: Final = (*classes, fallback)
        self._by_code = {cls.code: cls for cls in self.classes}
        if len(self._by_code) != len(self.classes):
            raise ValueError("two classes of error have the same code")

    def class_of(self, error: SocketpoolError) -> type[SocketpoolError]:
        """The nearest registered class that the error is an instance of, or the fallback."""
        return next((cls for cls in type(error).__mro__ if cls in self.classes), self.fallback)

    def code_of(self, error: SocketpoolError) -> str:
        """The code under which the other side learns of the error."""
        return self.class_of(error).code

    def rebuild(
        self,
        code: object,
        message: str,
        hint: str = "",
        *,
        fallback: type[SocketpoolError] | None = None,
    ) -> SocketpoolError:
        """The error that the other side reported; ``code`` may be anything that came from there.

        ``fallback`` replaces the registry's own for a code that is unknown here.
        """
        cls = self._by_code.get(code) if isinstance(code, str) else None
        return (cls or fallback or self.fallback)(message, hint=hint)


API_ERRORS: Final = ErrorRegistry(
    NotAuthorised,
    ServiceForbidden,
    OperatorOnly,
    ServiceUnknown,
    NoSuchLease,
    NoSuchTarget,
    TimedOut,
    KeyReused,
    TooLarge,
    UsageError,
    ConfigError,
    QuotaExceeded,
    NoCapacity,
    StoreError,
    fallback=SocketpoolError,
)
"""Errors of the pool server's API, in the order of their HTTP status."""

SESSION_ERRORS: Final = ErrorRegistry(
    NotAuthorised,
    TimedOut,
    ArchiveError,
    FileRefused,
    SourceChanged,
    *archive.ALL,
    ServiceCrashed,
    fallback=ServiceFailed,
)
"""Errors with which a service may end a session."""


def api_fallback(status: int) -> type[SocketpoolError]:
    """The family of an answer whose code is unknown, as that of a newer server may be."""
    if status in {401, 403}:
        return NotAuthorised
    if status in {429, 503}:
        return NoCapacity
    return UsageError if 400 <= status < 500 else SocketpoolError


def api_table() -> str:
    """The errors of the API as a Markdown table."""
    return _table(
        ("code", "HTTP status", "class", "exit code", "meaning"),
        API_ERRORS,
        lambda cls: (str(cls.status), f"`{cls.__name__}`", str(cls.exit_code)),
    )


def session_table() -> str:
    """The errors of a session as a Markdown table."""
    return _table(
        ("code", "class", "exit code", "meaning"),
        SESSION_ERRORS,
        lambda cls: (f"`{cls.__name__}`", str(cls.exit_code)),
    )


TABLES: Final = {"api-errors": api_table, "session-errors": session_table}


def with_tables(text: str) -> str:
    """A Markdown page with each table between its markers written anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = before + begin + table() + end + rest.partition(end)[2]
    return text


def _table(
    columns: Row, registry: ErrorRegistry, facts: Callable[[type[SocketpoolError]], Row]
) -> str:
    rows = [columns, ("---",) * len(columns)]
    for cls in registry.classes:
        meaning = (inspect.getdoc(cls) or "").partition("\n")[0].rstrip(".").replace("``", "`")
        rows.append((f"`{cls.code}`", *facts(cls), meaning))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
