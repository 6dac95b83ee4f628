"""How a command gets at a pool: directly, or through an SSH tunnel."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socketpool import variables
from socketpool.cli.sshoptions import tunnel_to
from socketpool.config.values import DEFAULT_POOL, Address
from socketpool.errors import NotAuthorised, UsageError
from socketpool.tunnel.reconnect import GIVE_UP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.client.api import PoolClient
    from socketpool.tunnel.reconnect import Tunnel
    from socketpool.tunnel.states import TunnelState

PROFILE_MARK = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a pool is, and what gives access to it; host and port as seen from the SSH host."""

    host: str
    port: int
    token_file: str | None = None
    state_dir: str | None = None
    """With SSH it is a directory of the remote host."""
    account: str | None = None
    """The account that runs a pool of this machine; without meaning through SSH."""
    ssh: str | None = None
    ssh_config: Path | None = None
    accept_new: bool = False
    give_up: float = GIVE_UP_SECONDS
    """How long, in seconds, a login that is refused after a loss is tried again."""


def way_of_profile(
    mark: str,
    *,
    token_file: str | None = None,
    state_dir: str | None = None,
    account: str | None = None,
    ssh_config: Path | None = None,
    accept_new: bool = False,
) -> Way:
    """The way of the profile ``@name``; what is given here counts more.  Raises UsageError."""
    from socketpool.config.profiles import find_profile

    profile = find_profile(mark.removeprefix(PROFILE_MARK))
    return Way(
        host=profile.pool.host,
        port=profile.pool.port,
        token_file=token_file or (str(profile.token_file) if profile.token_file else None),
        state_dir=state_dir,
        account=account or profile.account,
        ssh=profile.ssh,
        ssh_config=ssh_config or profile.ssh_config,
        accept_new=accept_new,
    )


def way_through(
    ssh: str,
    pool: str | None,
    *,
    token_file: str | None = None,
    state_dir: str | None = None,
    ssh_config: Path | None = None,
    accept_new: bool = False,
) -> Way:
    """The way through a host to a pool, IP:PORT as seen there.  Raises UsageError."""
    try:
        address = Address.parse(pool) if pool else DEFAULT_POOL
    except ValueError as error:
        raise UsageError(f"--pool: {error}") from None
    return Way(
        host=address.host,
        port=address.port,
        token_file=token_file,
        state_dir=state_dir,
        ssh=ssh,
        ssh_config=ssh_config,
        accept_new=accept_new,
    )


@contextmanager
def reach(way: Way, note: Callable[[str], None]) -> Iterator[PoolClient]:
    """The pool for the length of a ``with`` block; raises what prevents it."""
    from socketpool.client.connecting import connect

    if way.ssh is not None:
        with through(way, note, told(note)) as (client, _):
            yield client
        return
    address = str(Address(host=way.host, port=way.port))
    with connect(
        address, token_file=way.token_file, state_dir=way.state_dir, account=way.account
    ) as client:
        yield client


@contextmanager
def through(
    way: Way, note: Callable[[str], None], on_change: Callable[[TunnelState, str], None]
) -> Iterator[tuple[PoolClient, Tunnel]]:
    """The pool through SSH, and the tunnel, for the length of a ``with`` block."""
    from socketpool.client.apitoken import configured_token

    # Read first: a token file that is wrong is said before anybody is called.
    configured_token(way.token_file)
    with tunnel_of(way, note, on_change) as tunnel, pool_behind(tunnel, way) as client:
        yield client, tunnel


@contextmanager
def tunnel_of(
    way: Way, note: Callable[[str], None], on_change: Callable[[TunnelState, str], None]
) -> Iterator[Tunnel]:
    """The tunnel alone, for the length of a ``with`` block."""
    if way.ssh is None:
        raise UsageError("this pool is reached without SSH", hint="use socketpool lease or run")
    with tunnel_to(
        way.ssh,
        config=way.ssh_config,
        accept_new=way.accept_new,
        note=note,
        on_change=on_change,
        give_up=way.give_up,
    ) as tunnel:
        yield tunnel


@contextmanager
def pool_behind(tunnel: Tunnel, way: Way) -> Iterator[PoolClient]:
    """The pool at the far end of a tunnel, for the length of a ``with`` block."""
    from socketpool.client.api import PoolClient
    from socketpool.client.apitoken import configured_token

    token = configured_token(way.token_file) or _remote_token(tunnel, way)
    with closing(PoolClient(way.host, way.port, token, dial=tunnel.dial)) as client:
        yield client


def told(note: Callable[[str], None]) -> Callable[[TunnelState, str], None]:
    """Tells the user, in words, of every change but the expected ones."""

    def on_change(state: TunnelState, why: str) -> None:
        if why:
            note(f"tunnel {state}: {why}")

    return on_change


def _remote_token(tunnel: Tunnel, way: Way) -> str:
    from socketpool.client.api import PoolClient
    from socketpool.tunnel.remotetoken import find_remote_token  # needs paramiko

    token = find_remote_token(tunnel.link(), way.host, way.port, way.state_dir)
    if token is not None:
        return token
    with closing(PoolClient(way.host, way.port, "", dial=tunnel.dial)) as client:
        client.check_alive()  # that no pool is there is the more useful thing to say
    raise NotAuthorised(
        f"no API token for the pool at {way.host} port {way.port} of {tunnel.name}",
        hint="that account may not read it there. Ask the pool's operator for the token, and name "
        f"the file that holds it here: --token-file, or {variables.TOKEN_FILE}",
    )
