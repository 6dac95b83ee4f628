"""Finds a pool as the commands do, and connects to it."""

from __future__ import annotations

import os

from socketpool import variables
from socketpool.client.api import PoolClient
from socketpool.client.apitoken import find_access, local_address
from socketpool.client.asyncclient import AsyncPoolClient
from socketpool.client.dial import TcpDial
from socketpool.config.statedir import StateDir
from socketpool.config.values import Address
from socketpool.errors import UsageError


def connect(
    pool: str | None = None,
    *,
    token_file: str | None = None,
    state_dir: str | None = None,
    account: str | None = None,
) -> PoolClient:
    """A client of a pool, for a ``with`` statement that closes it.

        with connect() as pool, pool.lease("redis") as redis:
            ...

    ``pool`` is the address of the pool server, such as ``127.0.0.1:8080``.  The default is the
    variable SOCKETPOOL_POOL, else the pool that this machine runs in ``state_dir``.  The API token
    is read from ``token_file``.  The default is the file that SOCKETPOOL_TOKEN_FILE names, else
    the token of the state directory, for a pool of this machine.  ``account`` is the account that
    runs a pool of this machine, if that is not one of the usual ones.

    Raises UsageError for an address that is none, ConfigError for a token file that can't be read,
    NotAuthorised when there is no token, and PoolUnreachable when there is no pool to show it to.
    A pool behind SSH is reached with the command ``socketpool tunnel``.
    """
    address = find_address(pool, state_dir)
    access = find_access(
        address.host, address.port, file=token_file, state_dir=state_dir, account=account
    )
    return PoolClient(
        access.host, address.port, access.token, known=access.known, dial=TcpDial(access.accounts)
    )


def connect_async(
    pool: str | None = None,
    *,
    token_file: str | None = None,
    state_dir: str | None = None,
    account: str | None = None,
) -> AsyncPoolClient:
    """As `connect`, for ``async with``; it reads files and resolves names before it returns."""
    return AsyncPoolClient(
        connect(pool, token_file=token_file, state_dir=state_dir, account=account)
    )


def find_address(pool: str | None = None, state_dir: str | None = None) -> Address:
    """The pool server's address as given, else of SOCKETPOOL_POOL, else of the state directory.

    Raises UsageError for what is no address, and when there is none.
    """
    given = pool or os.environ.get(variables.POOL)
    if given:
        try:
            return Address.parse(given)
        except ValueError as error:
            raise UsageError(f"pool {given!r}: {error}") from None
    state = StateDir.locate(state_dir)
    local = local_address(state)
    if local is None:
        raise UsageError(
            f"no pool was ever started on {state.root}",
            hint=f"name one with --pool IP:PORT or {variables.POOL}, "
            "or start one: socketpool serve",
        )
    return Address(host=local[0], port=local[1])
