"""The kernel's table of TCP sockets (``/proc/net/tcp`` and ``tcp6``, proc_pid_net(5)).

This is the one place that knows the format of the table: the server, the doctor, the tunnel (which
reads a remote host's table) and the tests take their rows from here.  Which *process* has a socket
is not in the table; see :mod:`socketpool.system.listeners`.
"""

from __future__ import annotations

import enum
import itertools
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC = Path("/proc")

TABLES = ("net/tcp", "net/tcp6")
"""Below `PROC`.  A kernel without IPv6 lacks the second."""


class TcpState(enum.IntEnum):
    """The state of a TCP socket, numbered as in the kernel's ``tcp_states.h``."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


class TcpSocket(NamedTuple):
    """One row of the table.

    Hosts are numeric (``127.0.0.1``, ``::1``); an IPv4 address that an IPv6 socket shows as
    ``::ffff:127.0.0.1`` is given as ``127.0.0.1``.  A socket that listens has port 0 as its remote
    port.  ``uid`` is the account that made the socket.  ``inode`` identifies the socket; it is 0
    where no process has it, as in TIME_WAIT or before ``accept``.
    """

    family: socket.AddressFamily
    host: str
    port: int
    remote_host: str
    remote_port: int
    state: TcpState
    uid: int
    inode: int


def tcp_sockets(proc: Path = PROC) -> Iterator[TcpSocket]:
    """Every TCP socket of this network namespace; raises OSError when the kernel can't be asked."""
    for lines in _tables(proc):
        yield from parse(lines)


def listening_sockets(proc: Path = PROC) -> Iterator[TcpSocket]:
    """Every socket that listens; raises OSError when the kernel can't be asked."""
    for lines in _tables(proc):
        yield from parse_listening(lines)


def parse_listening(lines: Iterable[str]) -> Iterator[TcpSocket]:
    """Those rows of one table that listen; raises ValueError as :func:`parse` does.

    The kernel puts them first, and the others may be thousands: reading stops at the first other.
    """
    return itertools.takewhile(lambda row: row.state is TcpState.LISTEN, parse(lines))


def parse(
    lines: Iterable[str], byteorder: Literal["little", "big"] = sys.byteorder
) -> Iterator[TcpSocket]:
    """The rows of one table, whose first line names the columns.

    ``byteorder`` is that of the host of the table, which writes each address as 32-bit words of its
    own order (ports don't depend on it).  Raises ValueError for a line that is no row.
    """
    for line in itertools.islice(lines, 1, None):
        fields = line.split(maxsplit=10)
        if len(fields) < 10:
            raise ValueError(f"not a row of a socket table: {line[:200]!r}")
        family, host, port = _address(fields[1], byteorder)
        _, remote_host, remote_port = _address(fields[2], byteorder)
        state = TcpState(int(fields[3], 16))
        uid, inode = int(fields[7]), int(fields[9])
        yield TcpSocket(family, host, port, remote_host, remote_port, state, uid, inode)


def _tables(proc: Path) -> Iterator[Iterable[str]]:
    for name in TABLES:
        with suppress(FileNotFoundError), (proc / name).open(encoding="ascii") as lines:
            yield lines


def _address(
    text: str, byteorder: Literal["little", "big"]
) -> tuple[socket.AddressFamily, str, int]:
    digits, _, port = text.partition(":")
    packed = bytes.fromhex(digits)
    if byteorder == "little" and len(packed) == 4:
        packed = packed[::-1]
    elif byteorder == "little":
        packed = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
    if len(packed) == 4:
        return socket.AF_INET, socket.inet_ntop(socket.AF_INET, packed), int(port, 16)
    host = socket.inet_ntop(socket.AF_INET6, packed)  # ValueError unless 16 bytes
    return socket.AF_INET6, host.removeprefix("::ffff:") if "." in host else host, int(port, 16)
