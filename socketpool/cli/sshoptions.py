"""The options by which commands go through SSH."""

from __future__ import annotations

from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from socketpool.cli.prompts import ask_user
from socketpool.config.destination import Destination
from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.tunnel.reconnect import Tunnel
    from socketpool.tunnel.states import TunnelState

ssh_option = click.option(
    "--ssh",
    metavar="[USER@]HOST[:PORT]",
    help="Go through SSH to this host, or alias of ssh_config; ip and port are as seen there.",
)
ssh_config_option = click.option(
    "--ssh-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read this ssh_config instead of the user's and the system's.",
)
accept_new_option = click.option(
    "--accept-new",
    is_flag=True,
    help="Trust the key of a host that is not known yet, and remember it.",
)


@contextmanager
def tunnel_to(
    ssh: str,
    *,
    config: Path | None,
    accept_new: bool,
    note: Callable[[str], None],
    on_change: Callable[[TunnelState, str], None],
    give_up: float,
) -> Iterator[Tunnel]:
    """A tunnel for the length of a ``with`` block; paramiko is imported only here."""
    destination = Destination.parse(ssh)
    try:
        from socketpool.tunnel.ssh import open_tunnel
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the way through SSH needs a package that is not installed: {error.name}",
            hint="pip install 'socketpool[ssh]'",
        ) from None

    tunnel = open_tunnel(
        destination,
        config=config,
        accept_new=accept_new,
        ask=ask_user,
        note=note,
        on_change=on_change,
        give_up=give_up,
    )
    with closing(tunnel):
        yield tunnel
