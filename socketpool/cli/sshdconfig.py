"""``socketpool sshd-config``: the drop-in for an account that can only forward to the pool."""

from __future__ import annotations

import re

import click

from socketpool.cli.base import HostType, PortType, say
from socketpool.config.values import DEFAULT_POOL
from socketpool.core.ports import PortRange
from socketpool.errors import UsageError
from socketpool.tunnel.account import DEFAULT_USER, KEY_OPTIONS, sshd_drop_in


def _ports(_: click.Context, __: click.Parameter, value: str) -> PortRange:
    try:
        return PortRange.parse(value)
    except ValueError as error:
        raise UsageError(f"PORTS: {error}") from None


def _user(_: click.Context, __: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value) is None:
        raise UsageError(f"--user: {value!r} can't be an account's name")
    return value


@click.command("sshd-config")
@click.argument("ports", metavar="FIRST-LAST", callback=_ports)
@click.option("--host", type=HostType(), default=DEFAULT_POOL.host, show_default=True)
@click.option(
    "--port",
    type=PortType(lowest=1),
    default=DEFAULT_POOL.port,
    show_default=True,
    help="The pool server's own port.",
)
@click.option("--user", callback=_user, default=DEFAULT_USER, show_default=True)
@click.option(
    "--key-options",
    is_flag=True,
    help="Print what goes before each key in authorized_keys instead.",
)
def sshd_config(ports: PortRange, *, host: str, port: int, user: str, key_options: bool) -> None:
    """Print what sshd needs for an account that can reach the pool's ports and nothing else.

    FIRST-LAST are the ports of the pool's services. Nothing is changed on this machine.
    """
    if key_options:
        click.echo(KEY_OPTIONS)
        return
    listed = sorted({port, *range(ports.first, ports.last + 1)})
    click.echo(sshd_drop_in(user, host, listed), nl=False)
    say(f"in its authorized_keys, before each key: {KEY_OPTIONS}")
