"""What this host says of itself that decides whether settings can work on it."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from socketpool.core.ports import PortRange
from socketpool.errors import ConfigError

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ephemeral_ports() -> PortRange | None:
    """The range from which the kernel takes ports for outgoing connections, if it tells."""
    try:
        first, last = EPHEMERAL.read_text(encoding="ascii").split()
        return PortRange(max(int(first), 1024), int(last))
    except (OSError, ValueError):
        return None


def resolve(host: str) -> str:
    """The numeric address of a host to listen on, IPv4 first; raises ConfigError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConfigError(
            f"{host!r} can't be resolved", hint="listen on an address of this machine"
        ) from None
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    return str(found[0][4][0])


def is_loopback(host: str) -> bool:
    """Whether what listens there can be reached from this machine only."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
