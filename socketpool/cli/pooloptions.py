"""The options by which the umbrella's commands find a pool and its token."""

from __future__ import annotations

import functools
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from socketpool.client.api import PoolClient
from socketpool.client.token import find_access, local_address
from socketpool.config.fields import Address
from socketpool.config.statedir import StateDir
from socketpool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENVIRONMENT = "SOCKETPOOL_POOL"

state_dir_option = click.option(
    "--state-dir",
    metavar="DIR",
    help="Where the pool keeps its files; default: SOCKETPOOL_STATE_DIR, else the XDG state home.",
)
token_file_option = click.option(
    "--token-file",
    metavar="FILE",
    help="The file with the pool's API token; default: SOCKETPOOL_TOKEN_FILE, else a local pool's.",
)
wait_option = click.option(
    "--wait",
    type=click.FloatRange(0, 300),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for services that are all in use.",
)


def pool_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--pool``, ``--token-file`` and ``--state-dir``."""
    pool_option = click.option(
        "--pool",
        metavar="IP:PORT",
        help=f"The pool server; default: {ENVIRONMENT}, else the state directory's own.",
    )
    return pool_option(token_file_option(state_dir_option(function)))


@contextmanager
def open_pool(
    pool: str | None, token_file: str | None, state_dir: str | None
) -> Iterator[PoolClient]:
    """The pool that these options and the variables behind them name."""
    address = _address(pool or os.environ.get(ENVIRONMENT), state_dir)
    access = find_access(address.host, address.port, file=token_file, state_dir=state_dir)
    with closing(PoolClient(access.host, address.port, access.token, known=access.known)) as client:
        yield client


def with_pool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options for a pool, and a `PoolClient` as its first argument."""

    @pool_options
    @functools.wraps(function)
    def wrapper(
        *args: Any, pool: str | None, token_file: str | None, state_dir: str | None, **kwargs: Any
    ) -> Any:
        with open_pool(pool, token_file, state_dir) as client:
            return function(client, *args, **kwargs)

    return wrapper


def _address(given: str | None, state_dir: str | None) -> Address:
    if given:
        try:
            return Address.parse(given)
        except ValueError as error:
            raise UsageError(f"--pool: {error}") from None
    state = StateDir.locate(state_dir)
    local = local_address(state)
    if local is None:
        raise UsageError(
            f"no pool was ever started on {state.root}",
            hint=f"name one with --pool IP:PORT or {ENVIRONMENT}, or start one: socketpool serve",
        )
    return Address(host=local[0], port=local[1])
