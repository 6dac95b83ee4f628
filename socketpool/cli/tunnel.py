"""``socketpool tunnel``: services of a remote pool, for any program on this machine."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from socketpool.cli.access import PROFILE_MARK, Way, through, way_of_profile, way_through
from socketpool.cli.base import PortType, say, tell
from socketpool.cli.keptlease import KeptLease
from socketpool.cli.lease import ttl_option
from socketpool.cli.pooloptions import token_file_option, wait_option
from socketpool.cli.program import ProgramAfterDashes, program_of, run_program
from socketpool.cli.sshoptions import accept_new_option, ssh_config_option
from socketpool.client.environment import lease_environment, variable_prefixes
from socketpool.config.values import DEFAULT_POOL, EVERYWHERE, Address, parse_duration
from socketpool.errors import NotAuthorised, UsageError
from socketpool.system.sockets import listen_on
from socketpool.tunnel.forward import BACKLOG, Forwarder
from socketpool.tunnel.loopback import listen_at, listen_for
from socketpool.tunnel.reconnect import GIVE_UP_SECONDS, describe_seconds
from socketpool.tunnel.socks import PoolPorts, ProxyRoute

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from socketpool.client.answers import ClientLease, LeasedService
    from socketpool.client.api import PoolClient
    from socketpool.tunnel.channel import TunnelStream
    from socketpool.tunnel.forward import Route
    from socketpool.tunnel.reconnect import Tunnel
    from socketpool.tunnel.states import TunnelState

CHECK_INTERVAL_SECONDS = 0.5
PROXY_HOST = "127.0.0.1"


def _near_address(_: click.Context, __: click.Parameter, value: str | None) -> Address | None:
    if value is None:
        return None
    try:
        host, _colon, port = value.rpartition(":") if _has_port(value) else (value, "", "0")
        address = Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))
        ipaddress.ip_address(address.host)
    except ValueError as error:
        raise UsageError(f"--listen {value}: {error}") from None
    return address


def _has_port(value: str) -> bool:
    return value.count(":") == 1 or "]:" in value


def _seconds(_: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise UsageError(f"--{str(parameter.name).replace('_', '-')}: {error}") from None


@click.command("tunnel", cls=ProgramAfterDashes)
@click.argument("host", metavar="[USER@]HOST[:PORT]|@PROFILE")
@click.argument("services", nargs=-1)
@click.option(
    "--pool",
    metavar="IP:PORT",
    help=f"The pool server, as seen from HOST; default: {DEFAULT_POOL}.",
)
@token_file_option
@click.option("--state-dir", metavar="DIR", help="Where the pool keeps its files on HOST.")
@click.option(
    "--socks",
    type=PortType(lowest=1),
    metavar="PORT",
    help="Also a proxy (SOCKS, HTTP CONNECT) to the pool's ports only, on this machine.",
)
@click.option(
    "--listen",
    callback=_near_address,
    metavar="ADDR[:PORT]",
    help="Listen at this address instead, from PORT on; default: one of 127.0.0.0/8 for HOST.",
)
@click.option(
    "--keep", is_flag=True, help="When the lease has ended, take another behind the same addresses."
)
@click.option(
    "--give-up",
    callback=_seconds,
    default=describe_seconds(GIVE_UP_SECONDS),
    show_default=True,
    metavar="90s|5m|1h",
    help="How long a login that is refused after a loss is tried again.",
)
@ttl_option
@wait_option
@ssh_config_option
@accept_new_option
@click.option("--json", "as_json", is_flag=True, help="Print addresses and changes as JSON lines.")
@click.pass_context
def tunnel(
    ctx: click.Context,
    host: str,
    services: tuple[str, ...],
    *,
    pool: str | None,
    token_file: str | None,
    state_dir: str | None,
    socks: int | None,
    listen: Address | None,
    keep: bool,
    give_up: float,
    ttl: float | None,
    wait: float,
    ssh_config: Path | None,
    accept_new: bool,
    as_json: bool,
) -> int:
    """Lease SERVICES of the pool on HOST and make them reachable here, through SSH.

    Each has its own port number here too, at a loopback address that belongs to HOST; any program
    may use it. With PROGRAM this lasts until that ends, which finds the addresses in its
    environment as with `socketpool run`; else until Ctrl-C. A connection to HOST that is lost is
    made again; the addresses and the lease stay.
    """
    argv = program_of(ctx)
    if not services and socks is None:
        raise UsageError(
            "no service is named",
            hint="name some: socketpool tunnel HOST web; or offer a proxy alone: --socks PORT",
        )
    variable_prefixes(services)
    given: dict[str, Any] = {
        "token_file": token_file,
        "state_dir": state_dir,
        "ssh_config": ssh_config,
        "accept_new": accept_new,
    }
    way = replace(_way(host, pool, given), give_up=give_up)
    output = _JsonOutput() if as_json else _Output()
    with (
        through(way, say, output.changed) as (client, tunnel),
        closing(_Ends(client, tunnel, listen)) as ends,
    ):
        if socks is not None:
            output.proxy(str(ends.offer_proxy(socks)))
        kept = KeptLease(
            client,
            list(services),
            wait=wait,
            ttl=ttl,
            keep=keep,
            again=lambda lease: output.leased_again(lease, ends.near(lease)),
            note=say,
        )

        def go_on() -> bool:
            return tunnel.failure is None and not kept.lost.is_set()

        with ExitStack() as stack:
            environment = dict(os.environ)
            if services:
                lease = stack.enter_context(kept).lease
                ends.listen_for(lease, kept)
                near = ends.near(lease)
                output.leased(lease, near)
                environment |= lease_environment(lease.id, near)
            try:
                code = _stay(ctx, argv, environment, go_on)
            finally:
                failure = tunnel.failure
                tunnel.stop_waiting()  # giving back must not wait for a host that is away
    if failure is not None:
        raise failure
    if kept.lost.is_set():
        raise NotAuthorised(
            f"lease {lease.id} has ended",
            hint="was it released by another, was the host away for longer than its time to live, "
            "or is it older than the pool's lease.max?",
        )
    return code


def _way(host: str, pool: str | None, given: dict[str, Any]) -> Way:
    if host.startswith(PROFILE_MARK):
        if pool:
            raise UsageError(f"--pool is for hosts; {host} says where its pool is")
        return way_of_profile(host, **given)
    return way_through(host, pool, **given)


def _stay(
    ctx: click.Context,
    argv: list[str],
    environment: Mapping[str, str],
    go_on: Callable[[], bool],
) -> int:
    """Until the program ends, else until Ctrl-C, or until there is no sense in going on."""
    if argv:
        return run_program(ctx.command_path, argv, environment, go_on)
    while go_on():
        time.sleep(CHECK_INTERVAL_SECONDS)
    return 0


class _Ends:
    """The near ends of a tunnel: what listens on this machine."""

    def __init__(self, client: PoolClient, tunnel: Tunnel, listen: Address | None) -> None:
        self._client = client
        self._tunnel = tunnel
        self._listen = listen
        self._near: list[tuple[str, int]] = []
        self._forwarders: list[Forwarder] = []
        self._pool_ports = PoolPorts((client.host, client.port), self._ports)

    def listen_for(self, lease: ClientLease, kept: KeptLease) -> None:
        """Listen for each service; what connects goes to the lease that holds then."""
        ports = [service.port for service in lease.services]
        if self._listen is None:
            address, listeners = listen_for(self._tunnel.name, ports)
        else:
            address = self._listen.host
            if first := self._listen.port:
                ports = list(range(first, first + len(ports)))
            listeners = listen_at(address, ports)
            self._warn(address)
        for number, listener in enumerate(listeners):
            self._near.append((_reached_at(address), listener.getsockname()[1]))
            self._forward(listener, self._route(kept, number))

    def near(self, lease: ClientLease) -> list[LeasedService]:
        """The services of a lease as they are reached here."""
        self._pool_ports.learn({service.port for service in lease.services})
        return [
            replace(service, host=host, port=port)
            for service, (host, port) in zip(lease.services, self._near, strict=True)
        ]

    def _route(self, kept: KeptLease, number: int) -> Route:
        def route(_connection: socket.socket) -> TunnelStream:
            service = kept.lease.services[number]
            return self._tunnel.dial(service.host, service.port)

        return route

    def offer_proxy(self, port: int) -> Address:
        """A proxy to the pool's ports; where it is reached."""
        host = self._listen.host if self._listen else PROXY_HOST
        try:
            listener = listen_on(host, port, BACKLOG)
        except OSError as error:
            raise UsageError(f"--socks {port}: {error.strerror}") from None
        self._forward(listener, ProxyRoute(self._pool_ports, self._tunnel.dial))
        return Address(host=_reached_at(host), port=port)

    def _warn(self, address: str) -> None:
        if address in EVERYWHERE or not ipaddress.ip_address(address).is_loopback:
            say(f"whoever reaches this machine at {address} can use these services")

    def close(self) -> None:
        """Listen no more."""
        for forwarder in self._forwarders:
            forwarder.close()

    def _forward(self, listener: socket.socket, route: Route) -> None:
        self._forwarders.append(Forwarder(listener, route, say))

    def _ports(self) -> set[int]:
        return {instance.port for instance in self._client.instances()}


def _reached_at(address: str) -> str:
    """Where programs of this machine reach what listens at an address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared


class _Output:
    """What the user is shown: addresses on stdout, changes on stderr."""

    def leased(self, lease: ClientLease, near: Sequence[LeasedService]) -> None:
        """The services can be used."""
        for service in near:
            tell(f"{service.service} {Address(host=service.host, port=service.port)}")
        say(f"lease {lease.id}, renewed until this ends")

    def leased_again(self, lease: ClientLease, _near: Sequence[LeasedService]) -> None:
        """Another lease is behind the same addresses."""
        say(f"lease {lease.id} is behind the same addresses")

    def proxy(self, address: str) -> None:
        """The proxy can be used."""
        tell(f"socks5 {address}")

    def changed(self, state: TunnelState, why: str) -> None:
        """The tunnel is in another state."""
        say(f"tunnel {state}" + (f": {why}" if why else ""))


class _JsonOutput(_Output):
    """The same as JSON lines, all on stdout."""

    def leased(self, lease: ClientLease, near: Sequence[LeasedService]) -> None:
        """See `_Output`."""
        services = [
            {
                "service": s.service,
                "host": s.host,
                "port": s.port,
                "instance": s.instance,
                "url": s.url,
            }
            for s in near
        ]
        self._emit("leased", lease=lease.id, token=lease.token, ttl=lease.ttl, services=services)

    def leased_again(self, lease: ClientLease, near: Sequence[LeasedService]) -> None:
        """See `_Output`."""
        self.leased(lease, near)

    def proxy(self, address: str) -> None:
        """See `_Output`."""
        self._emit("proxy", socks5=address)

    def changed(self, state: TunnelState, why: str) -> None:
        """See `_Output`."""
        self._emit("tunnel", state=state, why=why)

    def _emit(self, event: str, **fields: Any) -> None:
        tell(json.dumps({"event": event, **fields}))
