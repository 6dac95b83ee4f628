"""The account that may do nothing but reach a pool: text for sshd_config and authorized_keys.

The only place that holds this text; `socketpool sshd-config` prints it.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.config.values import EVERYWHERE, Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_USER = "socketpool-tunnel"

KEY_OPTIONS = 'restrict,port-forwarding,command="/bin/false"'
"""What precedes each key in authorized_keys: no session, whatever sshd_config has lost.

That keys forward to the pool only, and that nothing listens for them, is up to sshd_config.
"""

# sshd knows no ranges of ports: each is listed.  MaxSessions 0 means no shell, no command and no
# SFTP; the rest says so again, for a reader and for a configuration that loses a line.
_DROP_IN = """\
# Who logs in as {user} can reach the pool's ports and do nothing else.
# Put this into /etc/ssh/sshd_config.d/, check it with `sshd -t`, and reload sshd.
Match User {user}
    AuthenticationMethods publickey
    MaxSessions 0
    ForceCommand /bin/false
    PermitTTY no
    PermitUserRC no
    X11Forwarding no
    AllowAgentForwarding no
    AllowStreamLocalForwarding no
    PermitTunnel no
    GatewayPorts no
    AllowTcpForwarding local
    PermitListen none
    PermitOpen {targets}
    ClientAliveInterval 15
    ClientAliveCountMax 3
Match all
"""


def sshd_drop_in(user: str, targets: Iterable[Address]) -> str:
    """The drop-in for an account that may reach these targets, as clients name them."""
    return _DROP_IN.format(user=user, targets=" ".join(map(str, targets)))


def targets_of(
    listen: Address, services_host: str, ports: Iterable[int], resolve: Callable[[str], str]
) -> list[Address]:
    """What clients connect to: the pool server, and what leases name.

    ``localhost`` and ``127.0.0.1`` are two hosts to sshd.  The pool server may be named as it is
    configured or by its address; leases name an address: that of ``services_host``, or where that
    is the pool server's own or every address, the one at which the client reached the pool server.
    ``resolve`` gives a host's address.
    """
    if listen.host in EVERYWHERE:
        loopbacks = ["127.0.0.1"] + (["::1"] if listen.host == "::" else [])
        servers, addresses, own = loopbacks, loopbacks, {listen.host}
    else:
        addresses = [resolve(listen.host)]
        own = {listen.host, *addresses}
        servers = list(dict.fromkeys([listen.host, *addresses]))
    if services_host not in {*own, *EVERYWHERE}:
        addresses = [resolve(services_host)]
    targets = [Address(host=host, port=listen.port) for host in servers]
    targets += [Address(host=host, port=port) for host in addresses for port in ports]
    return list(dict.fromkeys(targets))
