"""The account that may do nothing but reach a pool: text for sshd_config and authorized_keys.

The only place that holds this text; `socketpool sshd-config` prints it.  Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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


def sshd_drop_in(user: str, host: str, ports: Iterable[int]) -> str:
    """The drop-in for an account that may reach these ports of a host, as clients name it.

    ``localhost`` and ``127.0.0.1`` are two hosts to sshd; clients of ours use what leases say,
    which is an address.
    """
    bracketed = f"[{host}]" if ":" in host else host
    targets = " ".join(f"{bracketed}:{port}" for port in ports)
    return _DROP_IN.format(user=user, targets=targets)
