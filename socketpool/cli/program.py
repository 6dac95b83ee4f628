"""Commands that run a program of the user's, given after ``--``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from socketpool.cli.base import say
from socketpool.client.child import NOT_EXECUTABLE, NOT_FOUND, run_child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DASHES = "--"
_PROGRAM = "socketpool.cli.program"


class ProgramAfterDashes(click.Command):
    """What follows ``--`` is the program's, options and further ``--`` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the program aside, and parse the rest."""
        at = args.index(DASHES) if DASHES in args else len(args)
        ctx.meta[_PROGRAM] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show where the program goes."""
        pieces = [*self.collect_usage_pieces(ctx), DASHES, "PROGRAM [ARGUMENT]..."]
        formatter.write_usage(ctx.command_path, " ".join(pieces))


def program_of(ctx: click.Context) -> list[str]:
    """The program and its arguments; empty when there is none."""
    argv: list[str] = ctx.meta[_PROGRAM]
    return argv


def run_program(
    command: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    keep_running: Callable[[], bool],
) -> int:
    """Run it to its end; returns its exit code, or as a shell when it can't be started."""
    try:
        return run_child(argv, environment, keep_running=keep_running)
    except FileNotFoundError:
        say(f"{command}: no program is named {argv[0]!r}")
        return NOT_FOUND
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        say(f"{command}: {argv[0]!r} can't be run: {reason}")
        return NOT_EXECUTABLE
