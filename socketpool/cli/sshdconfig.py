"""``socketpool sshd-config``: the drop-in for an account that can only forward to the pool."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from socketpool.cli.base import HostType, PortType, say
from socketpool.config.statedir import StateDir
from socketpool.config.values import DEFAULT_POOL, Address
from socketpool.core.ports import PortRange
from socketpool.errors import ConfigError, UsageError
from socketpool.system.hostfacts import resolve
from socketpool.tunnel.account import DEFAULT_USER, KEY_OPTIONS, sshd_drop_in, targets_of


def _user(_: click.Context, __: click.Parameter, value: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", value) is None:
        raise UsageError(f"--user: {value!r} can't be an account's name")
    return value


@click.command("sshd-config")
@click.argument("target", metavar="[FIRST-LAST|POOL.YML]", required=False)
@click.option("--host", type=HostType(), help="The pool server's host, with FIRST-LAST.")
@click.option("--port", type=PortType(lowest=1), help="The pool server's own port, likewise.")
@click.option(
    "--services-host", type=HostType(), help="The host that leases name; default: that of --host."
)
@click.option("--state-dir", metavar="DIR", help="That of the running pool.")
@click.option("--user", callback=_user, default=DEFAULT_USER, show_default=True)
@click.option(
    "--key-options",
    is_flag=True,
    help="Print what goes before each key in authorized_keys instead.",
)
def sshd_config(
    target: str | None,
    *,
    host: str | None,
    port: int | None,
    services_host: str | None,
    state_dir: str | None,
    user: str,
    key_options: bool,
) -> None:
    """Print what sshd needs for an account that can reach the pool's ports and nothing else.

    The pool is the one that runs here on the state directory, or that of a POOL.YML, or one whose
    services have the ports FIRST-LAST. Nothing is changed on this machine.
    """
    if key_options:
        click.echo(KEY_OPTIONS)
        return
    given = (host, port, services_host)
    if target is None or not _is_range(target):
        if any(given):
            raise UsageError("--host, --port and --services-host go with FIRST-LAST")
        if target is not None and state_dir is not None:
            raise UsageError("--state-dir goes with no pool's file")
        listen, services, ports = _of_file(target) if target else _of_running(state_dir)
    else:
        listen = Address(host=host or DEFAULT_POOL.host, port=port or DEFAULT_POOL.port)
        services = services_host or listen.host
        ports = PortRange.parse(target)
    targets = targets_of(listen, services, range(ports.first, ports.last + 1), resolve)
    click.echo(sshd_drop_in(user, targets), nl=False)
    say(f"in its authorized_keys, before each key: {KEY_OPTIONS}")


def _is_range(target: str) -> bool:
    if not target[:1].isdigit() or Path(target).exists():
        return False
    try:
        PortRange.parse(target)
    except ValueError as error:
        raise UsageError(f"PORTS: {error}") from None
    return True


def _of_file(path: str) -> tuple[Address, str, PortRange]:
    from socketpool.config.settings import load_settings

    settings = load_settings(path, ephemeral=None)
    return settings.listen, settings.services_host, settings.ports


def _of_running(state_dir: str | None) -> tuple[Address, str, PortRange]:
    """What the pool server of a state directory was started with."""
    path = StateDir.locate(state_dir).settings
    try:
        told = json.loads(path.read_bytes())
        listen = Address.parse(told["listen"])
        named = _named(told["source"]) or listen.host
        ports = PortRange.parse(told["ports"])
        return Address(host=named, port=listen.port), str(told["services_host"]), ports
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}",
            hint="run this as the account of a running pool, or name its POOL.YML, or its ports",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: not the settings of a pool") from None


def _named(source: dict[str, Any] | None) -> str | None:
    """The pool server's host as it was configured; the settings themselves hold its address."""
    if source is None:
        return None
    if source["listen"]:
        return Address.parse(source["listen"]).host
    try:
        listen, _, _ = _of_file(source["target"])
    except ConfigError:  # changed meanwhile, or not to be read by this account
        return None
    return listen.host
