"""Where a client finds the API token, and whom it shows it to.

A token of the state directory is for the pool on this machine only: it is never sent to another.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from socketpool import variables
from socketpool.client.api import PoolClient
from socketpool.client.dial import TcpDial
from socketpool.client.peeraccount import account_uid
from socketpool.config.statedir import StateDir
from socketpool.config.values import EVERYWHERE, Address
from socketpool.credentials.tokens import read_secret
from socketpool.errors import ConfigError, NotAuthorised


class Access(NamedTuple):
    """A pool server's token, and the host at which it may be shown."""

    token: str
    host: str
    known: bool = False
    """Whether a pool runs there for certain, though its server may be restarting just now."""
    accounts: frozenset[int] = frozenset()
    """The uids that may run the pool, besides the usual ones (see `usual_accounts`)."""


def find_access(
    host: str,
    port: int,
    *,
    file: str | None,
    state_dir: str | None,
    account: str | None = None,
) -> Access:
    """How to get at the pool at an address.

    Raises NotAuthorised when there is none to show, PoolUnreachable when nobody to show it to.
    ``account`` names the account that runs the pool, where that is not one of the usual ones.

    In this order: the file given, ``variables.TOKEN_FILE``, the state directory of a pool that
    this machine runs at that very address.  Where the host is a name for several addresses, the
    latter is only to be shown at the one where the pool listens.
    """
    accounts = pool_accounts(account)
    path = _configured_path(file)
    if path is not None:
        return Access(read_secret(path), host, accounts=accounts | _owner(path))
    state = StateDir.locate(state_dir)
    local = local_address(state)
    if local is not None and local[1] == port and _stands_for(host, local[0]) and is_running(state):
        at = host if local[0] in EVERYWHERE else local[0]
        token = read_secret(state.token)
        return Access(token, at, known=True, accounts=accounts | _owner(state.token))
    with closing(PoolClient(host, port, "", dial=TcpDial(accounts))) as client:
        client.check_alive()  # that no pool is there is the more useful thing to say
    raise NotAuthorised(
        f"no API token for the pool at {host} port {port}",
        hint="ask its operator for the token, and name the file in "
        f"{variables.TOKEN_FILE} or --token-file; "
        "for a pool of your own name its --state-dir, and the very address at which it listens",
    )


def configured_token(file: str | None) -> str | None:
    """The token in the file given, else in the one that ``variables.TOKEN_FILE`` names, if any."""
    path = _configured_path(file)
    return None if path is None else read_secret(path)


def pool_accounts(account: str | None) -> frozenset[int]:
    """The account given, else the one that ``variables.POOL_ACCOUNT`` names, if any, as a uid."""
    named = account or os.environ.get(variables.POOL_ACCOUNT)
    return frozenset({account_uid(named)}) if named else frozenset()


def local_accounts(account: str | None, state_dir: str | None) -> frozenset[int]:
    """Who may run the pool, as `find_access` has it, for those who show it another token.

    Raises :class:`ConfigError` when ``state_dir`` is given and can't be a pool's.
    """
    try:
        owner = _owner(StateDir.locate(state_dir).token)
    except ConfigError:
        if state_dir:
            raise
        owner = frozenset()  # who shows a lease's token needs no state directory of its own
    return pool_accounts(account) | owner


def _configured_path(file: str | None) -> Path | None:
    named = file or os.environ.get(variables.TOKEN_FILE)
    return _expanded(named) if named else None


def _owner(token_file: Path) -> frozenset[int]:
    """Who owns the file knows the token; for a pool's own file that is the pool's account."""
    try:
        return frozenset({token_file.stat().st_uid})
    except OSError:
        return frozenset()


def local_address(state: StateDir) -> tuple[str, int] | None:
    """Where the pool of a state directory listens, or last listened."""
    try:
        listen = json.loads(state.settings.read_text(encoding="utf-8"))["listen"]
        address = Address.parse(listen)
        return address.host, address.port
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_running(state: StateDir) -> bool:
    """Whether a server holds the state directory; after its end anybody may have its port."""
    try:
        fd = os.open(state.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}: no such home", hint="name the token's file in full") from None


def _stands_for(host: str, listen: str) -> bool:
    """Whether ``host`` means ``listen``, or any address of this machine if that means all.

    Any user of the machine may listen on its other addresses.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return False
    if listen not in EVERYWHERE:
        return listen in {str(address[0]) for _, _, _, _, address in found}
    return all(_is_own(family, str(address[0])) for family, _, _, _, address in found)


def _is_own(family: int, address: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
