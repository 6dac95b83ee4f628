"""A group of commands whose modules are imported when they are called, not before.

Each command needs other libraries, and together they take longer to import than most commands run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from socketpool.cli.base import HowtoGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARGIN = 6
"""Columns beside the names and the texts of a list of commands."""


class Verb(NamedTuple):
    """Where a command is, and its first sentence, as the group's help shows it."""

    module: str
    attribute: str
    summary: str


class LazyGroup(HowtoGroup):
    """A group that knows its commands by a table."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all commands, sorted."""
        return sorted(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        verb = self.verbs.get(cmd_name)
        if verb is None:
            return None
        command: click.Command = getattr(import_module(verb.module), verb.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        limit = formatter.width - _MARGIN - max(len(name) for name in self.verbs)
        stand_ins = [click.Command(n, help=self.verbs[n].summary) for n in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(str(c.name), c.get_short_help_str(limit)) for c in stand_ins])
