"""The pool's API token, found on the remote host where the account may read it.

Over SFTP, in the state directory of a pool that listens at the very address; an account that may
only forward has no SFTP, and then the token is configured.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from typing import TYPE_CHECKING

import paramiko
from paramiko.ssh_exception import SSHException

from socketpool import variables
from socketpool.config.statedir import SETTINGS, TOKEN
from socketpool.config.values import EVERYWHERE, Address
from socketpool.credentials.tokens import parse_secret
from socketpool.errors import NotAuthorised
from socketpool.system.sockettable import PROC, TABLES, parse_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.tunnel.link import Link

DEFAULT_STATE_DIR = ".local/state/socketpool"
"""From the account's home, where SFTP begins."""

SFTP_SECONDS = 15.0
MAX_BYTES = 4 << 20


def find_remote_token(link: Link, host: str, port: int, state_dir: str | None) -> str | None:
    """The token of the account's own pool, if that is the one at the address; else None.

    Raises ConfigError for a token file that holds something else, NotAuthorised where something
    else than an SFTP server answers, TunnelDown.
    """
    try:
        with _session(link) as sftp:
            return _find(sftp, host, port, state_dir or DEFAULT_STATE_DIR)
    except (SSHException, EOFError, OSError):
        return None  # no SFTP, or no pool of this account
    except (paramiko.SFTPError, struct.error, OverflowError, MemoryError):
        raise NotAuthorised(
            f"the API token can't be read on {link.host.name}: instead of its SFTP server a login "
            "shell or a forced command answers",
            hint="let the account's .bashrc print nothing for programs, or give the token: "
            f"--token-file, or {variables.TOKEN_FILE}",
        ) from None


@contextlib.contextmanager
def _session(link: Link) -> Iterator[paramiko.SFTPClient]:
    channel = link.open_session()
    # Some of paramiko's waits have no bound but the channel's end.
    deadline = threading.Timer(SFTP_SECONDS, channel.close)
    deadline.daemon = True
    deadline.start()
    try:
        channel.invoke_subsystem("sftp")
        yield paramiko.SFTPClient(channel)
    finally:
        deadline.cancel()
        channel.close()


def _find(sftp: paramiko.SFTPClient, host: str, port: int, root: str) -> str | None:
    try:
        listen = Address.parse(json.loads(_read(sftp, f"{root}/{SETTINGS}"))["listen"])
    except (ValueError, KeyError, TypeError):
        return None
    if listen.port != port or listen.host not in {host, *EVERYWHERE}:
        return None
    path = f"{root}/{TOKEN}"
    token = parse_secret(_read(sftp, path), f"{path} on the remote host")
    # After the pool's end anybody may have its port; to them the token isn't shown.
    owner = sftp.stat(path).st_uid
    return token if owner is not None and _listens(sftp, port, owner) else None


def _listens(sftp: paramiko.SFTPClient, port: int, owner: int) -> bool:
    """Whether all who listen on a port are the owner's processes."""
    try:
        owners = {
            row.uid
            for table in TABLES
            for row in parse_listening(_read(sftp, str(PROC / table)).splitlines())
            if row.port == port
        }
    except ValueError:
        return False  # that host is no Linux
    return owners == {owner}


def _read(sftp: paramiko.SFTPClient, path: str) -> str:
    with sftp.open(path, "rb") as file:
        return file.read(MAX_BYTES).decode("ascii", "replace")
