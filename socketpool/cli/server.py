"""``socketpool_server``: a pool in the foreground."""

from __future__ import annotations

import os
import shlex
from contextlib import closing
from typing import NoReturn

import click

import socketpool
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, run, say
from socketpool.cli.foreground import (
    ReloadRequested,
    Stopper,
    StopRequested,
    free_port,
    warn_exposed,
    warn_root,
)
from socketpool.cli.pooloptions import state_dir_option
from socketpool.client.api import PoolClient
from socketpool.config.models import DEFAULT_PORTS
from socketpool.config.settings import Settings, load_settings
from socketpool.config.statedir import StateDir, default_root
from socketpool.config.values import Address
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import SocketpoolError, UsageError
from socketpool.supervision.daemon import PoolDaemon
from socketpool.supervision.notify import say_ready
from socketpool.system.hostfacts import ephemeral_ports, resolve


def serve_pool(target: str, listen: Address | None, state_dir: str | None) -> int:
    """Run a pool until a signal; returns the exit code.  Raises ConfigError before any start."""
    settings = load_settings(target, listen=listen, ephemeral=ephemeral_ports())
    settings = _with_addresses(settings)
    state = StateDir.locate(state_dir)
    _warn(settings)
    pool = PoolDaemon(settings, state)
    stopper = Stopper(reloads=True)
    try:
        stopper.listen()
        pool.start()
        say(f"starting {len(settings.services)} services …")
        pool.wait_ready(stopper.check)
        _announce(settings, state, pool)
        say_ready()  # to systemd, where that started us
        _wait(pool, stopper)
        say("supervisord ended; stopping")
        return 1
    except StopRequested:
        say("stopping …")
        return 0
    finally:
        if pool.stop():
            say("stopped")


def _wait(pool: PoolDaemon, stopper: Stopper) -> None:
    """Return when supervisord has ended; at each SIGHUP have the configuration read again."""
    supervisord = os.pidfd_open(pool.supervisord_pid)
    try:
        while True:
            try:
                stopper.wait(supervisord)
            except ReloadRequested:
                _reload(pool)
            else:
                return
    finally:
        os.close(supervisord)


def _reload(pool: PoolDaemon) -> None:
    with closing(PoolClient(*pool.access())) as client:
        try:
            client.reload()
        except SocketpoolError as error:
            say(f"reload refused, everything stays as it was: {error.message}")
            if error.hint:
                say(f"  {error.hint}")
        else:
            say("reloaded")


def _with_addresses(settings: Settings) -> Settings:
    """Names resolved and port 0 replaced by a free one: what programs are told is definite."""
    host = resolve(settings.listen.host)
    port = settings.listen.port or _free_port(host, settings)
    return settings.model_copy(
        update={
            "listen": Address(host=host, port=port),
            "services_host": resolve(settings.services_host),
        }
    )


def _free_port(host: str, settings: Settings) -> int:
    while (port := free_port(host)) in settings.ports:
        pass
    return port


def _warn(settings: Settings) -> None:
    warn_root()
    warn_exposed("pool server", settings.listen.host)
    warn_exposed("services", settings.services_host)


def _announce(settings: Settings, state: StateDir, pool: PoolDaemon) -> None:
    listen = settings.listen
    click.echo(f"pool ready at {listen.host} port {listen.port}")
    for service, instances in pool.instances().items():
        missing = settings.services[service].warm - len(instances)
        if missing > 0:
            say(
                f"warning: {missing} instances of {service} could not be started: the ports of "
                f"{settings.ports} are taken by other programs, or supervisord refused"
            )
        failed = sum(i["state"] == "failed" for i in instances)
        ports = ", ".join(str(i["port"]) for i in instances[:8])
        more = f", … {len(instances)} in all" if len(instances) > 8 else ""
        click.echo(f"  {service:<12} {ports}{more}")
        if failed:
            log = state.logs / f"{service}-{instances[0]['port']}.log"
            say(f"warning: {failed} of {len(instances)} instances of {service} failed; see {log}")
    default = state.root == default_root()
    where = "" if default else f" --state-dir {shlex.quote(str(state.root))}"
    click.echo(f"look further:  supervisorctl -c {shlex.quote(str(state.supervisord_conf))} status")
    steps = [
        next((s.name for s in settings.services.values() if s.client is kind), "")
        for kind in ServiceKind
    ]
    if all(steps):
        click.echo(
            f"use it:        socketpool_client {listen.host} {listen.port} "
            f"site.zip {' '.join(steps)}{where}"
        )
    click.echo("stop it:       Ctrl-C")


@click.command(
    "socketpool_server", cls=HowtoCommand, context_settings={"help_option_names": HELP_NAMES}
)
@click.argument("ip", type=HostType())
@click.argument("port", type=PortType(lowest=0))
@click.argument("pool", metavar="POOL.YML|FIRST-LAST")
@state_dir_option
@click.version_option(socketpool.__version__)
def command(ip: str, port: int, pool: str, state_dir: str | None) -> int:
    """Run a pool in the foreground."""
    return serve_pool(pool, Address(host=ip, port=port), state_dir)


@click.command("serve")
@click.argument("pool", metavar="[POOL.YML|FIRST-LAST]", default=str(DEFAULT_PORTS))
@click.option("--listen", metavar="IP:PORT", help="Where the pool server listens.")
@state_dir_option
def serve(pool: str, listen: str | None, state_dir: str | None) -> int:
    """Run a pool in the foreground, as socketpool_server does.

    Without a pool.yml it has the services that come with socketpool on the default ports.
    """
    try:
        address = Address.parse(listen) if listen else None
    except ValueError as error:
        raise UsageError(f"--listen: {error}") from None
    return serve_pool(pool, address, state_dir)


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool_server")
