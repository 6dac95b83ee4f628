"""What this side decides by itself: addresses, what the proxy lets through, the drop-in."""

from __future__ import annotations

import ipaddress
from itertools import islice
from typing import TYPE_CHECKING

from socketpool.config.values import Address
from socketpool.errors import PoolUnreachable
from socketpool.tunnel import socks
from socketpool.tunnel.account import sshd_drop_in
from socketpool.tunnel.loopback import addresses
from socketpool.tunnel.socks import PoolPorts

if TYPE_CHECKING:
    import pytest


def test_every_host_has_its_own_sequence_of_loopback_addresses() -> None:
    seen = set()
    for host in (f"user@host{number}" for number in range(300)):
        found = list(islice(addresses(host), 3))
        assert found == list(islice(addresses(host), 3))
        for address in found:
            assert ipaddress.ip_address(address).is_loopback
            assert ipaddress.ip_address(address) not in ipaddress.ip_network("127.0.0.0/10")
        seen.add(found[0])
    assert len(seen) >= 299


def test_the_pool_is_asked_for_ports_that_are_not_known_yet_but_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    ports = {21000}

    def ask() -> set[int]:
        asked.append(1)
        return set(ports)

    allowed = PoolPorts(("127.0.0.1", 8080), ask)
    assert allowed.allow("127.0.0.1", 8080)
    assert allowed.allow("localhost", 8080)
    assert not asked
    assert allowed.allow("127.0.0.1", 21000)
    assert not allowed.allow("127.0.0.1", 21001)
    assert not allowed.allow("127.0.0.2", 21000)
    assert len(asked) == 1
    ports.add(21001)
    monkeypatch.setattr(socks, "REFRESH_SECONDS", 0)
    assert allowed.allow("127.0.0.1", 21001)


def test_a_pool_that_does_not_answer_adds_no_port() -> None:
    def fail() -> set[int]:
        raise PoolUnreachable("away")

    allowed = PoolPorts(("127.0.0.1", 8080), fail)
    assert not allowed.allow("127.0.0.1", 21000)
    allowed.learn({21000})  # that of a lease
    assert allowed.allow("127.0.0.1", 21000)


def test_the_drop_in_lists_every_port_and_forbids_the_rest() -> None:
    targets = [Address(host="::1", port=port) for port in (8080, 21000)]
    text = sshd_drop_in("tunnel", targets)
    lines = [line.strip() for line in text.splitlines()]
    assert "Match User tunnel" in lines
    assert "PermitOpen [::1]:8080 [::1]:21000" in lines
    for needed in ("MaxSessions 0", "AllowTcpForwarding local", "PermitListen none"):
        assert needed in lines
    assert lines[-1] == "Match all"
