"""``socketpool run``: a program with leased services around it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import click

from socketpool.cli.lease import ttl_option
from socketpool.cli.pooloptions import wait_option, with_near_pool
from socketpool.cli.program import DASHES, ProgramAfterDashes, program_of, run_program
from socketpool.client.environment import lease_environment, variable_prefixes
from socketpool.errors import NotAuthorised, UsageError

if TYPE_CHECKING:
    from socketpool.client.api import PoolClient


@click.command("run", cls=ProgramAfterDashes)
@click.argument("services", nargs=-1, required=True)
@ttl_option
@wait_option
@click.pass_context
@with_near_pool
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
    argv = program_of(ctx)
    if not argv:
        raise UsageError(
            "no program to run",
            hint=f"name it after {DASHES}: socketpool run {' '.join(services)} -- pytest",
        )
    variable_prefixes(services)
    lost = threading.Event()
    with client.hold(services, wait=wait, ttl=ttl, lost=lost.set) as lease:
        environment = os.environ | lease_environment(lease.id, lease.services)
        code = run_program(
            ctx.command_path, argv, environment, keep_running=lambda: not lost.is_set()
        )
    if lost.is_set():
        raise NotAuthorised(
            f"lease {lease.id} ended while {argv[0]!r} was running, which was therefore stopped "
            f"(exit code {code})",
            hint="was it released by another, asleep for longer than its time to live, or older "
            "than the pool's lease.max?",
        )
    return code
