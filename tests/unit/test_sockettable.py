"""The kernel's table of TCP sockets is read as it is written."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from socketpool.system.sockettable import (
    TcpState,
    listening_sockets,
    parse,
    parse_listening,
    tcp_sockets,
)

HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    "   uid  timeout inode\n"
)
LISTENS = (
    "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000"
    "  1000        0 424242 1 0000000025f52e60 100 0 0 10 0\n"
)
CONNECTED = (
    "   1: 020200C0:E1EC 507100CB:0050 01 00000000:00000000 00:00000000 00000000"
    "   33        0 7 1 00000000d22abf0e 20 4 30 10 -1\n"
)
SIX = (
    "   0: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A"
    " 00000000:00000000 00:00000000 00000000  1001        0 99 1 0000000000000000 100 0 0 10 0\n"
)
MAPPED = (
    "   1: 0000000000000000FFFF00000100007F:1F92 0000000000000000FFFF00000100007F:C000 01"
    " 00000000:00000000 00:00000000 00000000     0        0 5 1 0000000000000000 20 4 30 10 -1\n"
)


def test_a_row_tells_addresses_state_account_and_inode() -> None:
    listens, connected = parse([HEADER, LISTENS, CONNECTED], "little")
    assert (listens.family, listens.host, listens.port) == (socket.AF_INET, "127.0.0.1", 8080)
    assert (listens.state, listens.uid, listens.inode) == (TcpState.LISTEN, 1000, 424242)
    assert (listens.remote_host, listens.remote_port) == ("0.0.0.0", 0)
    assert (connected.host, connected.port) == ("192.0.2.2", 57836)
    assert (connected.remote_host, connected.remote_port) == ("203.0.113.80", 80)
    assert (connected.state, connected.uid, connected.inode) == (TcpState.ESTABLISHED, 33, 7)


def test_addresses_of_ipv6_are_read_and_mapped_ones_are_those_of_ipv4() -> None:
    six, mapped = parse([HEADER, SIX, MAPPED], "little")
    assert (six.family, six.host, six.port, six.uid) == (socket.AF_INET6, "::1", 8081, 1001)
    assert six.remote_host == "::"
    assert (mapped.family, mapped.host, mapped.remote_host) == (
        socket.AF_INET6,
        "127.0.0.1",
        "127.0.0.1",
    )


def test_a_host_of_the_other_byte_order_has_the_same_ports() -> None:
    row = LISTENS.replace("0100007F", "7F000001")
    (listens,) = parse([HEADER, row], "big")
    assert (listens.host, listens.port) == ("127.0.0.1", 8080)


def test_reading_those_that_listen_stops_at_the_first_other() -> None:
    rows = parse_listening([HEADER, LISTENS, CONNECTED, "cut off"])
    assert [row.inode for row in rows] == [424242]


@pytest.mark.parametrize(
    "line",
    [
        "\n",
        "0: 0100007F:1F90 00000000:0000 0A\n",
        LISTENS.replace("0100007F", "0100"),
        LISTENS.replace("0100007F", "xx00007F"),
        LISTENS.replace("1F90", ""),
        LISTENS.replace(" 0A ", " 7F "),
        LISTENS.replace("424242", "many"),
    ],
)
def test_what_is_no_row_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever part it is
        list(parse([HEADER, line]))


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    assert list(parse([])) == []
    assert list(parse([HEADER])) == []
    assert list(tcp_sockets(tmp_path)) == []  # a kernel without either family


def test_the_sockets_of_this_process_are_in_the_table() -> None:
    families = [(socket.AF_INET, "127.0.0.1")]
    if Path("/proc/net/if_inet6").exists():
        families.append((socket.AF_INET6, "::1"))
    for family, host in families:
        with (
            socket.create_server((host, 0), family=family) as listener,
            socket.create_connection(listener.getsockname()[:2]) as client,
        ):
            accepted, _ = listener.accept()
            port = listener.getsockname()[1]
            with accepted:
                (listens,) = [row for row in listening_sockets() if row.port == port]
                ends = {
                    (row.port, row.remote_port): row
                    for row in tcp_sockets()
                    if port in {row.port, row.remote_port} and row.state is TcpState.ESTABLISHED
                }
                ours, theirs = ends[client.getsockname()[1], port], ends[port, ours_port(client)]
                assert (listens.family, listens.host) == (family, host)
                assert listens.inode == os.fstat(listener.fileno()).st_ino
                assert ours.inode == os.fstat(client.fileno()).st_ino
                assert theirs.inode == os.fstat(accepted.fileno()).st_ino
                assert {listens.uid, ours.uid, theirs.uid} == {os.geteuid()}
                assert (ours.host, ours.remote_host) == (host, host)


def ours_port(client: socket.socket) -> int:
    return int(client.getsockname()[1])
