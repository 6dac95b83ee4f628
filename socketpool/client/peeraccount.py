"""Whose socket is at the other end of a connection within this machine.

A port that a pool has left for a moment, because its server restarts, can be taken by any local
user.  So before anything secret is sent to an address of this machine, the client looks up in the
kernel's table of sockets which account made the socket at the other end.
"""

from __future__ import annotations

import enum
import os
import pwd
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from socketpool import variables
from socketpool.errors import ConfigError, PoolUnreachable, WrongListener
from socketpool.system.socketdiag import Place, find_sockets
from socketpool.system.sockettable import PROC, TABLES, TcpSocket, TcpState, parse

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection
    from pathlib import Path

CONVENTIONAL = "socketpool"
"""The account under which the packages and roles run a pool."""

TRIES = 5
PAUSE = 0.005
"""Seconds between tries: the table isn't read at one instant, so a moving row may be missed."""

LISTENS = ":0000 0A "
"""In a row of the table: no remote port, and the state LISTEN."""

ROOT = 0
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Unseen(enum.Enum):
    """Why the table doesn't name an account."""

    FOREIGN_TABLE = "the table does not show our own end"
    REDIRECTED = "the kernel passes the connection on to somewhere else"
    GONE = "nobody has the connection, and nobody listens"


def account_uid(account: str) -> int:
    """The uid of an account's name, or of a number in its place; raises ConfigError."""
    if account.isascii() and account.isdecimal():
        return int(account[:10])
    try:
        return pwd.getpwnam(account).pw_uid
    except KeyError:
        raise ConfigError(
            f"there is no account {account!r} on this machine",
            hint=f"--pool-account and {variables.POOL_ACCOUNT} name the account that runs the pool",
        ) from None


def usual_accounts() -> frozenset[int]:
    """Whose listeners are always believed: root's, our own, and the conventional account's."""
    found = {ROOT, os.getuid(), os.geteuid()}
    with suppress(KeyError):
        found.add(pwd.getpwnam(CONVENTIONAL).pw_uid)
    return frozenset(found)


def check_peer(connection: socket.socket, accounts: Collection[int]) -> None:
    """Raise :class:`WrongListener` unless the peer's socket belongs to one of these accounts.

    ``accounts`` are uids.  Connections to other machines, and systems without Linux's table of
    sockets, are not checked.  Raises PoolUnreachable when the connection has ended meanwhile.
    """
    try:
        ours, theirs = connection.getsockname(), connection.getpeername()
    except OSError as error:
        raise PoolUnreachable(f"the connection was closed at once: {error.strerror}") from None
    if ours[0] != theirs[0] and not _is_loopback(theirs[0]):
        return
    here, there = (_plain(ours[0]), ours[1]), (_plain(theirs[0]), theirs[1])
    found = peer_accounts(here, there)
    if found is Unseen.GONE:
        raise PoolUnreachable(f"nobody listens at {theirs[0]} port {theirs[1]} any more")
    if isinstance(found, Unseen):
        return
    wrong = sorted(found.difference(accounts))
    if wrong:
        name = _name(wrong[0])
        raise WrongListener(
            f"the account {name} listens at {theirs[0]} port {theirs[1]}, which is not known to "
            "run this pool; nothing was sent to it",
            hint=f"if the pool does run as {name}: --pool-account {name}, "
            f"or {variables.POOL_ACCOUNT}",
        )


def peer_accounts(
    ours: Place, theirs: Place, read: Callable[[Place, Place], list[TcpSocket]] | None = None
) -> frozenset[int] | Unseen:
    """The accounts that can read what arrives at the other end of a connection.

    A connection that was accepted belongs to whoever accepted it.  One that was not belongs to
    the socket that listens: when that is closed, the kernel resets the connection.  Each try reads
    who listens before it reads the connection, so a listener that took the place of another in
    between is not believed: the connection of the other was accepted by then, or is reset.
    """
    verdict: frozenset[int] | Unseen = Unseen.FOREIGN_TABLE
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE)
        verdict = _judge((read or read_sockets)(ours, theirs), ours, theirs)
        if verdict is not Unseen.GONE:
            break
    return verdict


def _judge(
    rows: list[TcpSocket], ours: tuple[str, int], theirs: tuple[str, int]
) -> frozenset[int] | Unseen:
    here, there = (_plain(ours[0]), ours[1]), (_plain(theirs[0]), theirs[1])
    ends = [row for row in rows if row.state is not TcpState.LISTEN]
    own = next((r for r in ends if _ends(r) == (here, there)), None)
    peer = next((r for r in ends if _ends(r) == (there, here)), None)
    if own is None:
        return Unseen.FOREIGN_TABLE
    if peer is not None and peer.inode:
        return frozenset({peer.uid})
    listening = {row.uid for row in _listening(rows, there)}
    if listening:
        # Recent kernels show a connection that waits to be accepted with its listener's account,
        # older ones with root's.
        return frozenset(listening if peer is None else {*listening, peer.uid})
    if peer is None and own.state is TcpState.ESTABLISHED:
        return Unseen.REDIRECTED  # by rules that root alone can make
    return Unseen.GONE


def _listening(rows: list[TcpSocket], place: Place) -> list[TcpSocket]:
    """The sockets to which the kernel gives connections to an address: the nearest match."""
    listening = [r for r in rows if r.state is TcpState.LISTEN and r.port == place[1]]
    for host in (place[0], *(EVERYWHERE if ":" not in place[0] else EVERYWHERE[1:])):
        found = [row for row in listening if row.host == host]
        if found:
            return found
    return []


def read_sockets(ours: Place, theirs: Place) -> list[TcpSocket]:
    """Who listens at their place, and both ends; nothing where the kernel can't be asked."""
    try:
        return find_sockets(ours, theirs)
    except OSError:  # a kernel or a container without it
        return read_table(ours[1], theirs[1])


def read_table(ours: int, theirs: int, proc: Path = PROC) -> list[TcpSocket]:
    """Those rows of the kernel's tables that listen at their port, or join the two ports."""
    own, their = f":{ours:04X} ", f":{theirs:04X} "
    rows: list[TcpSocket] = []
    for table in TABLES:
        with suppress(OSError, ValueError):  # not Linux, or a table of another make
            lines = (proc / table).read_text(encoding="ascii").splitlines()
            wanted = (x for x in lines if their in x and (own in x or LISTENS in x))
            rows += parse(["", *wanted])
    return rows


def _ends(row: TcpSocket) -> tuple[Place, Place]:
    return (row.host, row.port), (row.remote_host, row.remote_port)


def _plain(host: str) -> str:
    return host.partition("%")[0].removeprefix("::ffff:")


def _is_loopback(host: str) -> bool:
    return host == "::1" or _plain(host).startswith("127.")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
