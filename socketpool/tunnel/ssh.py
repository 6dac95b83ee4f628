"""A tunnel to an SSH destination, from its configuration to its first connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.tunnel.link import Connector
from socketpool.tunnel.reconnect import GIVE_UP_SECONDS, Tunnel
from socketpool.tunnel.sshconfig import resolve_chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from socketpool.config.destination import Destination
    from socketpool.tunnel.identities import AskUser
    from socketpool.tunnel.states import TunnelState


def open_tunnel(
    destination: Destination,
    *,
    config: Path | None,
    accept_new: bool,
    ask: AskUser,
    note: Callable[[str], None],
    on_change: Callable[[TunnelState, str], None],
    give_up: float = GIVE_UP_SECONDS,
) -> Tunnel:
    """Connect; the tunnel is to be closed.

    ``ask`` asks for a passphrase, ``note`` tells the user something, ``on_change`` is told of each
    change of the tunnel's state and why; ``give_up`` is how long, in seconds, a login that is
    refused after a loss is tried again.  Raises ConfigError, HostUnreachable, HostKeyRefused or
    LoginRefused.
    """
    connector = Connector(
        resolve_chain(destination, config), ask=ask, note=note, accept_new=accept_new
    )
    tunnel = Tunnel(connector.host.name, connector.connect, on_change, give_up)
    tunnel.open()
    return tunnel
