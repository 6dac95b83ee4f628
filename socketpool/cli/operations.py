"""``socketpool drain``, ``reload`` and ``check``: changing a pool that runs, with care."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from socketpool.cli.base import say, tell
from socketpool.cli.pooloptions import with_pool
from socketpool.config.settings import load_settings
from socketpool.errors import TimedOut, UsageError
from socketpool.system.hostfacts import ephemeral_ports

if TYPE_CHECKING:
    from socketpool.client.api import PoolClient

POLL_SECONDS = 0.2


@click.command("drain")
@click.argument("target", metavar="[SERVICE|INSTANCE]", default="")
@click.option("--all", "everything", is_flag=True, help="Drain the whole pool.")
@click.option("--undo", is_flag=True, help="Offer it again.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 86400),
    metavar="SECONDS",
    help="Return when none of it is leased any more; exit code 8 when some is after so long.",
)
@with_pool
def drain(
    client: PoolClient, target: str, *, everything: bool, undo: bool, wait: float | None
) -> None:
    """Grant no more leases on a SERVICE, an INSTANCE such as upload:21000, or all.

    Leases that live go on until they end; what nobody holds is stopped.
    """
    if bool(target) == everything:
        raise UsageError("name what to drain, or say --all", hint="socketpool status lists it")
    if undo and wait is not None:
        raise UsageError("--undo has nothing to wait for")
    deadline = time.monotonic() + (wait or 0)
    drained = client.drain(target, undo=undo)
    what = target or "the pool"
    if undo:
        tell(f"{what} is offered again")
        return
    while wait is not None and drained.leased:
        if time.monotonic() > deadline:
            raise TimedOut(
                f"{drained.leased} instances of {what} are still leased after {wait:g} s",
                hint="they stop when their leases end; socketpool leases shows those",
            )
        time.sleep(POLL_SECONDS)
        drained = client.drain(target)
    left = f", {drained.leased} instances still leased" if drained.leased else ""
    tell(f"{what} is drained{left}")


@click.command("reload")
@with_pool
def reload(client: PoolClient) -> None:
    """Have the pool read its configuration again and apply what has changed.

    Instances of services that did not change are not touched. A file with a mistake is refused
    whole, and the pool stays as it was.
    """
    done = client.reload()
    for what, names in (
        ("added", done.added),
        ("changed, restarted one by one", done.changed),
        ("removed", done.removed),
    ):
        if names:
            tell(f"{what}: {', '.join(names)}")
    say("reloaded")


@click.command("check")
@click.argument("pool", metavar="POOL.YML|FIRST-LAST")
def check(pool: str) -> None:
    """Check a pool's configuration and its catalogue, and start nothing.

    Exit code 0 when a pool can start with it, 2 with the first mistake when none can.
    """
    settings = load_settings(pool, ephemeral=ephemeral_ports())
    for service in settings.services.values():
        tell(f"{service.name:<16} {service.warm} warm, {service.max} at most")
    say(f"sound: {len(settings.services)} services on ports {settings.ports}")
