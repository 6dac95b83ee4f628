"""``socketpool run``: a program with leased services around it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import click

from socketpool.cli.base import say
from socketpool.cli.lease import await_answer, ttl_option
from socketpool.cli.pooloptions import wait_option, with_pool
from socketpool.client.child import NOT_EXECUTABLE, NOT_FOUND, run_child
from socketpool.client.environment import lease_environment, variable_prefixes
from socketpool.client.renewal import leased
from socketpool.errors import NotAuthorised, UsageError

if TYPE_CHECKING:
    from socketpool.client.api import PoolClient

DASHES = "--"
_PROGRAM = "socketpool.cli.run.program"


class _ProgramAfterDashes(click.Command):
    """What follows ``--`` is the program's, options and further ``--`` included."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the program aside, and parse the rest."""
        at = args.index(DASHES) if DASHES in args else len(args)
        ctx.meta[_PROGRAM] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show where the program goes."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] SERVICE... -- PROGRAM [ARGUMENT]...")


@click.command("run", cls=_ProgramAfterDashes)
@click.argument("services", nargs=-1, required=True)
@ttl_option
@wait_option
@click.pass_context
@with_pool
def run(
    client: PoolClient,
    ctx: click.Context,
    services: tuple[str, ...],
    *,
    ttl: float | None,
    wait: float,
) -> int:
    """Run PROGRAM while SERVICES are leased for it; its exit code is ours.

    For a service redis it finds REDIS_HOST, REDIS_PORT and REDIS_URL in its environment, for a
    second one REDIS_2_HOST and so on, and the lease's id in SOCKETPOOL_LEASE. There is no shell.
    The lease is renewed as long as the program runs and released when it ends, however it ends.
    """
    argv: list[str] = ctx.meta[_PROGRAM]
    if not argv:
        raise UsageError(
            "no program to run",
            hint=f"name it after {DASHES}: socketpool run {' '.join(services)} -- pytest",
        )
    variable_prefixes(services)
    lost = threading.Event()
    with leased(client, list(services), wait=wait, ttl=ttl, lost=lost.set) as lease:
        for service in lease.services:
            await_answer(service.host, service.port)
        environment = os.environ | lease_environment(lease.id, lease.services)
        try:
            code = run_child(argv, environment, keep_running=lambda: not lost.is_set())
        except FileNotFoundError:
            say(f"socketpool run: no program is named {argv[0]!r}")
            return NOT_FOUND
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            say(f"socketpool run: {argv[0]!r} can't be run: {reason}")
            return NOT_EXECUTABLE
    if lost.is_set():
        raise NotAuthorised(
            f"lease {lease.id} ended while {argv[0]!r} was running, which was therefore stopped "
            f"(exit code {code})",
            hint="was it released by another, asleep for longer than its time to live, or older "
            "than the pool's lease.max?",
        )
    return code
