"""Single TCP sockets from the kernel, by their addresses (sock_diag(7)).

The answer takes microseconds however many sockets there are, where the whole table
(:mod:`socketpool.system.sockettable`) takes tens of milliseconds on a busy host.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import closing

from socketpool.system.sockettable import TcpSocket, TcpState

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
ANY_STATE = 0xFFFFFFFF
NO_COOKIE = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2 up to its socket
_PORTS = struct.Struct("!HH")
_REST = struct.Struct("=III")  # inet_diag_sockid after its addresses: interface and cookie
_ANSWER = struct.Struct("=BBBB4s16s16s12sIIIII")  # inet_diag_msg

Place = tuple[str, int]


class SocketDiag:
    """A question and answer with the kernel; making one raises OSError where there is none."""

    def __init__(self) -> None:
        # Linux only: other systems lack the constant.
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            raise OSError(errno.EAFNOSUPPORT, "no netlink")
        self._socket = socket.socket(
            family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
        )
        self._socket.settimeout(1)

    def close(self) -> None:
        """Ask nothing more."""
        self._socket.close()

    def find(self, local: Place, remote: Place) -> TcpSocket | None:
        """The socket to which the kernel would give a segment from ``remote`` to ``local``.

        That is the connection, or else the socket that listens.  Hosts are numeric, of one family.
        Raises OSError.
        """
        family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, ANY_STATE)
        body += _PORTS.pack(local[1], remote[1])
        for host, _ in (local, remote):
            body += socket.inet_pton(family, host).ljust(16, b"\0")
        body += _REST.pack(0, NO_COOKIE, NO_COOKIE)
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + body)
        answer = self._socket.recv(65536)
        _, kind, *_ = _HEADER.unpack_from(answer)
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, _HEADER.size)
            if -code == errno.ENOENT:
                return None
            raise OSError(-code, "sock_diag")
        return _row(answer[_HEADER.size :])


def find_sockets(ours: Place, theirs: Place) -> list[TcpSocket]:
    """Who listens at their place, our end of a connection to it, and their end, in this order.

    Raises OSError where the kernel can't be asked.
    """
    with closing(SocketDiag()) as diag:
        nobody = (ours[0], 0)
        asked = (diag.find(theirs, nobody), diag.find(ours, theirs), diag.find(theirs, ours))
    return [row for row in asked if row is not None]


def _row(message: bytes) -> TcpSocket:
    family, state, _, _, ports, source, target, _, _, _, _, uid, inode = _ANSWER.unpack_from(
        message
    )
    made = socket.AddressFamily(family)
    size = 16 if made is socket.AF_INET6 else 4
    here, there = (
        socket.inet_ntop(made, packed[:size]).removeprefix("::ffff:") for packed in (source, target)
    )
    port, remote_port = _PORTS.unpack(ports)
    return TcpSocket(made, here, port, there, remote_port, TcpState(state), uid, inode)
