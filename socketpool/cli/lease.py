"""``socketpool lease`` and its kin: single services for any program."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import click

from socketpool.cli.base import printable, say
from socketpool.cli.pooloptions import wait_option, with_near_pool, with_pool
from socketpool.client.dial import await_answer
from socketpool.config.values import Address, parse_duration
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from socketpool.client.answers import ClientLease
    from socketpool.client.api import PoolClient


def _seconds(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}") from None


ttl_option = click.option(
    "--ttl", callback=_seconds, metavar="90s|5m|1h", help="How long the lease lives."
)


@click.command("lease")
@click.argument("services", nargs=-1, required=True)
@ttl_option
@click.option("--hold", is_flag=True, help="Keep it until Ctrl-C, then release it.")
@wait_option
@click.option("--json", "as_json", is_flag=True, help="Print the whole lease as JSON.")
@with_near_pool
def lease(
    client: PoolClient,
    services: tuple[str, ...],
    *,
    ttl: float | None,
    hold: bool,
    wait: float,
    as_json: bool,
) -> None:
    """Lease SERVICES and print an ip:port for each, as soon as it answers there.

    The lease ends by itself after its time to live; `socketpool renew` extends it and
    `socketpool release` gives it back. With --hold this command does both.
    """
    if hold:
        from socketpool.client.api import lease_lost

        lost = threading.Event()
        with client.hold(services, wait=wait, ttl=ttl, lost=lost.set) as held:
            _show(held, as_json=as_json)
            say("held until Ctrl-C")
            lost.wait()
        raise lease_lost(held.id)
    granted = client.acquire(list(services), wait=wait, ttl=ttl)
    try:
        for service in granted.services:
            await_answer(service.host, service.port, client.dial)
        _show(granted, as_json=as_json)
    except BaseException:
        client.release(granted.id)  # nobody has been told of it
        raise


def _show(lease: ClientLease, *, as_json: bool) -> None:
    if as_json:
        services = [
            {
                "service": s.service,
                "host": s.host,
                "port": s.port,
                "instance": s.instance,
                "url": s.url,
            }
            for s in lease.services
        ]
        answer = {"lease": lease.id, "token": lease.token, "ttl": lease.ttl, "services": services}
        click.echo(json.dumps(answer))
    else:
        for service in lease.services:
            click.echo(str(Address(host=service.host, port=service.port)))
        say(f"lease {lease.id}, for {lease.ttl:g} s")


@click.command("leases")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@with_pool
def leases(client: PoolClient, *, as_json: bool) -> None:
    """List the live leases."""
    from socketpool.client.answers import LeaseStatus, to_api

    found = client.leases()
    if as_json:
        click.echo(json.dumps([to_api(LeaseStatus, lease) for lease in found]))
        return
    for entry in found:
        where = ", ".join(f"{s.service} {s.port}" for s in entry.services)
        click.echo(printable(f"{entry.id}  {entry.expires_in:7.1f} s left  {where}"))
    if not found:
        say("no leases")


@click.command("renew")
@click.argument("lease_id", metavar="LEASE")
@with_pool
def renew(client: PoolClient, lease_id: str) -> None:
    """Give LEASE another time to live."""
    click.echo(f"{client.renew(lease_id):g} s left")


@click.command("release")
@click.argument("lease_id", metavar="LEASE")
@with_pool
def release(client: PoolClient, lease_id: str) -> None:
    """End LEASE: its workspace is wiped and its instances go back to the pool."""
    client.release(lease_id)
