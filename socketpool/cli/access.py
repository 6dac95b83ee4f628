"""How a command gets at a pool: directly, or through an SSH tunnel."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socketpool.cli.sshoptions import tunnel_to
from socketpool.client.api import PoolClient
from socketpool.client.dial import Dial, dial_tcp
from socketpool.client.token import Access, configured_token, find_access
from socketpool.errors import NotAuthorised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.tunnel.reconnect import Tunnel


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a pool is, and what gives access to it; host and port as seen from the SSH host."""

    host: str
    port: int
    token_file: str | None = None
    state_dir: str | None = None
    """With SSH it is a directory of the remote host."""
    ssh: str | None = None
    ssh_config: Path | None = None
    accept_new: bool = False


@dataclass(frozen=True, slots=True)
class Reached:
    """A pool within reach."""

    client: PoolClient
    dial: Dial
    tunnel: Tunnel | None


@contextmanager
def reach(way: Way, note: Callable[[str], None]) -> Iterator[Reached]:
    """The pool for the length of a ``with`` block; raises what prevents it."""
    with ExitStack() as stack:
        tunnel: Tunnel | None = None
        dial: Dial = dial_tcp
        if way.ssh is None:
            access = find_access(way.host, way.port, file=way.token_file, state_dir=way.state_dir)
        else:
            # Read first: a token file that is wrong is said before anybody is called.
            token = configured_token(way.token_file)
            tunnel = stack.enter_context(
                tunnel_to(way.ssh, config=way.ssh_config, accept_new=way.accept_new, note=note)
            )
            dial = tunnel.dial
            access = Access(token or _remote_token(tunnel, way), way.host)
        client = PoolClient(access.host, way.port, access.token, dial=dial)
        yield Reached(stack.enter_context(closing(client)), dial, tunnel)


def _remote_token(tunnel: Tunnel, way: Way) -> str:
    from socketpool.tunnel.remotetoken import find_remote_token  # noqa: PLC0415 - needs paramiko

    token = find_remote_token(tunnel.link(), way.host, way.port, way.state_dir)
    if token is not None:
        return token
    with closing(PoolClient(way.host, way.port, "", dial=tunnel.dial)) as client:
        client.check_alive()  # that no pool is there is the more useful thing to say
    raise NotAuthorised(
        f"no API token for the pool at {way.host} port {way.port} of {tunnel.name}",
        hint="that account may not read it there. Ask the pool's operator for the token, and name "
        "the file that holds it here: --token-file, or SOCKETPOOL_TOKEN_FILE",
    )
