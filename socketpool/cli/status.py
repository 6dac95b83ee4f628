"""``socketpool status`` and ``socketpool services``: what the pool has."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from socketpool.cli.base import make_console, printable
from socketpool.cli.pooloptions import with_pool
from socketpool.errors import NotAuthorised

if TYPE_CHECKING:
    from collections.abc import Iterable

    from socketpool.client.answers import InstanceStatus, PoolStatus
    from socketpool.client.api import PoolClient


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_pool
def status(client: PoolClient, *, as_json: bool) -> None:
    """Show every instance by service and port, and who holds it."""
    from socketpool.client.answers import InstanceStatus, to_api

    instances = client.instances()
    if as_json:
        click.echo(json.dumps([to_api(InstanceStatus, instance) for instance in instances]))
        return
    rows = (
        (i.instance, str(i.port), i.state, str(i.pid or "-"), i.lease or "-") for i in instances
    )
    _print_table(("instance", "port", "state", "pid", "lease"), rows)
    for instance in instances:
        _tell_failure(instance)
    with suppress(NotAuthorised):  # the rest is for the operator
        _tell_pool(client.status())


def _tell_failure(instance: InstanceStatus) -> None:
    if instance.failures:  # also while it is tried again
        click.echo(f"\n{instance.instance} failed {instance.failures} times; its log ends:")
        for line in instance.last_lines or ["(nothing was logged)"]:
            click.echo(f"    {printable(line)}")


def _tell_pool(pool: PoolStatus) -> None:
    if pool.drained:
        names = ["the whole pool" if name == "*" else name for name in pool.drained]
        click.echo(f"\ndrained: {', '.join(names)}; undo it with socketpool drain --undo")
    for other in pool.foreign:
        who = f"{other.program}, process {other.pid}" if other.pid else "another account"
        click.echo(printable(f"\nport {other.port} is held by another program: {who}"))
    for name in pool.refused_files:
        click.echo(printable(f"\nconf.d/{name} can't be read by supervisord and was set aside"))


@click.command("services")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_pool
def services(client: PoolClient, *, as_json: bool) -> None:
    """Show the catalogue."""
    from socketpool.client.answers import ServiceDescription, to_api

    found = client.services()
    if as_json:
        click.echo(json.dumps([to_api(ServiceDescription, service) for service in found]))
        return
    rows = (
        (
            s.service,
            ", ".join(f"{n} {state}" for state, n in sorted(s.instances.items())) or "none",
            f"{s.warm} warm, {s.max} at most",
            s.description,
        )
        for s in found
    )
    _print_table(("service", "instances", "configured", "description"), rows)


def _print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    make_console().print(table)
