"""A tunnel to an SSH destination, from its configuration to its first connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.tunnel.link import Connector
from socketpool.tunnel.reconnect import Tunnel
from socketpool.tunnel.sshconfig import resolve_chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from socketpool.config.destination import Destination
    from socketpool.tunnel.auth import Ask
    from socketpool.tunnel.states import TunnelState


def open_tunnel(
    destination: Destination,
    *,
    config: Path | None,
    accept_new: bool,
    ask: Ask,
    note: Callable[[str], None],
    on_change: Callable[[TunnelState, str], None],
) -> Tunnel:
    """Connect; the tunnel is to be closed.

    ``ask`` asks for a passphrase, ``note`` tells the user something, ``on_change`` is told of each
    change of the tunnel's state and why.  Raises ConfigError, HostUnreachable, HostKeyRefused or
    LoginRefused.
    """
    connector = Connector(
        resolve_chain(destination, config), ask=ask, note=note, accept_new=accept_new
    )
    tunnel = Tunnel(connector.host.name, connector.connect, on_change)
    tunnel.open()
    return tunnel
