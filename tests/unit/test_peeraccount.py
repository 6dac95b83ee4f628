"""Whose socket is at the other end, by the table of this kernel and of others."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from socketpool.client import peeraccount
from socketpool.client.peeraccount import Unseen, account_uid, check_peer, peer_accounts, read_table
from socketpool.errors import ConfigError, PoolUnreachable, WrongListener

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.system.sockettable import TcpSocket

OURS, THEIRS = ("127.0.0.1", 0xC000), ("127.0.0.1", 0x5000)
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
HERE, THERE, NOWHERE = "0100007F:C000", "0100007F:5000", "00000000:0000"
ANYWHERE = "00000000:5000"
LISTEN, ESTABLISHED, SYN_RECV = "0A", "01", "03"
POOL, THIEF = 990, 1001


def no_netlink(*_: object) -> list[TcpSocket]:
    raise OSError


def row(local: str, remote: str, state: str, uid: int, inode: int) -> str:
    return (
        f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {uid} 0 {inode} 1"
    )


OWN = row(HERE, THERE, ESTABLISHED, 5, 77)
CASES = {
    "accepted by the pool": (
        [row(THERE, NOWHERE, LISTEN, POOL, 1), OWN, row(THERE, HERE, ESTABLISHED, POOL, 2)],
        frozenset({POOL}),
    ),
    "not accepted yet, as Linux 6 shows it": (
        [row(THERE, NOWHERE, LISTEN, POOL, 1), OWN, row(THERE, HERE, ESTABLISHED, POOL, 0)],
        frozenset({POOL}),
    ),
    "not accepted yet, as older kernels show it": (
        [row(THERE, NOWHERE, LISTEN, POOL, 1), OWN, row(THERE, HERE, ESTABLISHED, 0, 0)],
        frozenset({POOL, 0}),
    ),
    "not accepted yet by a thief, on an older kernel": (
        [row(THERE, NOWHERE, LISTEN, THIEF, 1), OWN, row(THERE, HERE, ESTABLISHED, 0, 0)],
        frozenset({THIEF, 0}),
    ),
    "accepted by a thief whose listener the pool's has replaced": (
        [row(THERE, NOWHERE, LISTEN, POOL, 1), OWN, row(THERE, HERE, ESTABLISHED, THIEF, 2)],
        frozenset({THIEF}),
    ),
    "the handshake is not seen as complete": (
        [row(THERE, NOWHERE, LISTEN, THIEF, 1), OWN, row(THERE, HERE, SYN_RECV, 0, 0)],
        frozenset({THIEF, 0}),
    ),
    "a listener at every address": (
        [row(ANYWHERE, NOWHERE, LISTEN, POOL, 1), OWN, row(THERE, HERE, ESTABLISHED, POOL, 0)],
        frozenset({POOL}),
    ),
    "the listener at the very address gets the connection": (
        [
            row(ANYWHERE, NOWHERE, LISTEN, POOL, 1),
            row(THERE, NOWHERE, LISTEN, THIEF, 2),
            OWN,
            row(THERE, HERE, ESTABLISHED, 0, 0),
        ],
        frozenset({THIEF, 0}),
    ),
    "nobody listens any more": ([OWN, row(THERE, HERE, ESTABLISHED, 0, 0)], Unseen.GONE),
    "redirected by the kernel": ([OWN], Unseen.REDIRECTED),
    "a table of another network": ([row(THERE, NOWHERE, LISTEN, THIEF, 1)], Unseen.FOREIGN_TABLE),
    "no table": ([], Unseen.FOREIGN_TABLE),
}


@pytest.mark.parametrize("case", CASES)
def test_who_can_read_what_we_send(tmp_path: Path, case: str) -> None:
    rows, expected = CASES[case]
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("\n".join([HEADER, *rows, ""]))
    table = partial(read_table, OURS[1], THEIRS[1], tmp_path)
    assert peer_accounts(OURS, THEIRS, lambda *_: table()) == expected


def test_without_a_table_nothing_is_checked(tmp_path: Path) -> None:
    table = read_table(OURS[1], THEIRS[1], tmp_path)
    assert peer_accounts(OURS, THEIRS, lambda *_: table) is Unseen.FOREIGN_TABLE


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("way", ["asked", "read"])
def test_our_own_listener_is_seen(
    host: str, accepted: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "read":
        monkeypatch.setattr(peeraccount, "find_sockets", no_netlink)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as ours,
    ):
        theirs = listener.accept()[0] if accepted else None
        check_peer(ours, {os.geteuid()})
        with pytest.raises(WrongListener, match="nothing was sent"):
            check_peer(ours, ())
        if theirs is not None:
            theirs.close()


def test_a_listener_for_both_families_is_seen_through_ipv4() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as ours,
    ):
        assert peer_accounts(ours.getsockname(), ours.getpeername()) == frozenset({os.geteuid()})


def test_a_listener_that_went_away_is_no_pool() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
    with closing(ours), pytest.raises(PoolUnreachable):
        check_peer(ours, {os.geteuid()})


def test_accounts_are_named_or_numbered() -> None:
    assert account_uid("root") == 0
    assert account_uid("1234") == 1234
    with pytest.raises(ConfigError, match="no account 'no-such-account'"):
        account_uid("no-such-account")
