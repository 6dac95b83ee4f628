"""The options by which the umbrella's commands find a pool and its token."""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from socketpool import variables
from socketpool.cli.access import PROFILE_MARK, Way, reach, way_of_profile
from socketpool.cli.base import say
from socketpool.client.dial import TcpDial
from socketpool.defaults import MAX_WAIT_SECONDS, WAIT_SECONDS
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.client.api import PoolClient

state_dir_option = click.option(
    "--state-dir",
    metavar="DIR",
    help=f"Where the pool keeps its files; default: {variables.STATE_DIR}, "
    "else the XDG state home.",
)
token_file_option = click.option(
    "--token-file",
    metavar="FILE",
    help=f"The file with the pool's API token; default: {variables.TOKEN_FILE}, "
    "else a local pool's.",
)
account_option = click.option(
    "--pool-account",
    "account",
    metavar="NAME",
    help="The account that runs a pool of this machine; "
    f"default: {variables.POOL_ACCOUNT}. "
    "Always accepted: root, your own, socketpool, and the owner of the token's file.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(0, MAX_WAIT_SECONDS),
    default=WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for services that are all in use.",
)


def pool_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--pool``, ``--token-file``, ``--state-dir`` and ``--pool-account``."""
    pool_option = click.option(
        "--pool",
        metavar="IP:PORT|@PROFILE",
        help=f"The pool server; default: {variables.POOL}, else the state directory's own.",
    )
    return pool_option(token_file_option(state_dir_option(account_option(function))))


@contextmanager
def open_pool(
    pool: str | None, token_file: str | None, state_dir: str | None, account: str | None
) -> Iterator[PoolClient]:
    """The pool that these options and the variables behind them name."""
    way = _way(pool or os.environ.get(variables.POOL), token_file, state_dir, account)
    with reach(way, say) as client:
        yield client


def with_pool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options for a pool, and a `PoolClient` as its first argument."""

    @pool_options
    @functools.wraps(function)
    def wrapper(
        *args: Any,
        pool: str | None,
        token_file: str | None,
        state_dir: str | None,
        account: str | None,
        **kwargs: Any,
    ) -> Any:
        with open_pool(pool, token_file, state_dir, account) as client:
            return function(client, *args, **kwargs)

    return wrapper


def with_near_pool(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `with_pool`, for commands whose services must be reachable from here without SSH."""

    @functools.wraps(function)
    def wrapper(client: PoolClient, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(client.dial, TcpDial):
            raise UsageError(
                "the services of this pool are behind SSH, out of the reach of programs here",
                hint="socketpool tunnel makes them reachable: socketpool tunnel --help",
            )
        return function(client, *args, **kwargs)

    return with_pool(wrapper)


def _way(
    given: str | None, token_file: str | None, state_dir: str | None, account: str | None
) -> Way:
    if given and given.startswith(PROFILE_MARK):
        return way_of_profile(given, token_file=token_file, state_dir=state_dir, account=account)
    from socketpool.client.connecting import find_address

    address = find_address(given, state_dir)
    return Way(
        host=address.host,
        port=address.port,
        token_file=token_file,
        state_dir=state_dir,
        account=account,
    )
