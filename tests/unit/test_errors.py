"""Every failure has one of the documented exit codes and a stable code."""

from __future__ import annotations

import importlib
import pkgutil
import re
from operator import attrgetter

import pytest

import socketpool
from socketpool.errorregistry import API_ERRORS, SESSION_ERRORS
from socketpool.errors import (
    INTERRUPTED_EXIT_CODE,
    ArchiveError,
    ConfigError,
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
    ServiceFailed,
    SocketpoolError,
    TimedOut,
    UsageError,
)

DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 7, 8, 130}


def all_errors() -> set[type[SocketpoolError]]:
    """Every class of error in the package, wherever it is defined."""
    for module in pkgutil.walk_packages(socketpool.__path__, "socketpool."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[SocketpoolError]] = set()
    todo = [SocketpoolError]
    while todo:
        cls = todo.pop()
        found.add(cls)
        todo += cls.__subclasses__()
    return {cls for cls in found if cls.__module__.startswith("socketpool.")}


@pytest.mark.parametrize("cls", sorted(all_errors(), key=attrgetter("__name__")))
def test_an_error_has_a_documented_exit_code_and_a_stable_code(cls: type[SocketpoolError]) -> None:
    assert cls.exit_code in DOCUMENTED - {0, 130}
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.code)


def test_codes_tell_errors_apart() -> None:
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", sorted(all_errors(), key=attrgetter("code")))
def test_every_error_crosses_with_the_exit_code_of_its_family(cls: type[SocketpoolError]) -> None:
    """Whoever adds a class finds here whether it is registered."""
    if issubclass(cls, ArchiveError):
        assert cls in SESSION_ERRORS.classes
    if issubclass(cls, UsageError | ConfigError | NoCapacity) or cls is NotAuthorised:
        assert cls in API_ERRORS.classes
    for registry in (API_ERRORS, SESSION_ERRORS):
        if cls in registry.classes:
            rebuilt = registry.rebuild(cls.code, "m", "h")
            assert type(rebuilt) is cls
            assert (rebuilt.message, rebuilt.hint) == ("m", "h")
            assert registry.code_of(rebuilt) == cls.code


@pytest.mark.parametrize(
    ("cls", "exit_code"),
    [
        (SocketpoolError, 1),
        (UsageError, 2),
        (ConfigError, 2),
        (PoolUnreachable, 3),
        (NoCapacity, 4),
        (NotAuthorised, 5),
        (ArchiveError, 6),
        (ServiceFailed, 7),
        (TimedOut, 8),
    ],
)
def test_the_families_have_the_codes_of_the_documentation(
    cls: type[SocketpoolError], exit_code: int
) -> None:
    assert cls.exit_code == exit_code
    assert INTERRUPTED_EXIT_CODE == 130


def test_an_error_is_its_message() -> None:
    error = NoCapacity("all taken", hint="wait")
    assert str(error) == error.message == "all taken"
    assert error.hint == "wait"
    assert NoCapacity("x").hint == ""
