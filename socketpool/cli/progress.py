"""What a run shows while it works: bars at a terminal, JSON for programs, else next to nothing."""

from __future__ import annotations

import functools
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from socketpool.cli.base import EVENTS_OPTION
from socketpool.cli.reporters import JsonReporter, PlainReporter
from socketpool.client.reporter import Reporter
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def make_reporter(*, quiet: bool, as_json: bool) -> Reporter:
    """The one that fits what was asked for and where stderr goes."""
    if quiet and as_json:
        raise UsageError("--quiet and --json exclude each other")
    if as_json:
        return JsonReporter()
    if quiet:
        return Reporter()
    if sys.stderr.isatty():
        from socketpool.cli.bars import BarReporter

        return BarReporter()
    return PlainReporter()


def with_reporter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--quiet`` and ``--json``, and a `Reporter` as its first argument.

    What ends it early is told by `socketpool.cli.base.run`, in JSON too.
    """

    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
    @click.option(
        EVENTS_OPTION, "as_json", is_flag=True, help="Print every event as a line of JSON."
    )
    @functools.wraps(function)
    def wrapper(*args: Any, quiet: bool, as_json: bool, **kwargs: Any) -> Any:
        with closing(make_reporter(quiet=quiet, as_json=as_json)) as reporter:
            return function(reporter, *args, **kwargs)

    return wrapper
