"""What can go wrong on the way through SSH, in words."""

from __future__ import annotations

from socketpool.errors import NotAuthorised, PoolUnreachable, SocketpoolError


class HostUnreachable(PoolUnreachable):
    """No SSH connection to the host; another try may succeed."""

    code = "ssh-unreachable"


class HostKeyRefused(NotAuthorised):
    """The host's key is unknown, changed or revoked."""

    code = "host-key"


class LoginRefused(NotAuthorised):
    """The host takes none of our keys."""

    code = "ssh-login"


class ForwardProhibited(NotAuthorised):
    """The host's sshd doesn't let this account reach the port."""

    code = "forwarding-prohibited"


class TargetRefused(PoolUnreachable):
    """The host was reached, and nothing listens at the port behind it."""

    code = "target-refused"


class TunnelDown(PoolUnreachable):
    """The connection was lost and not restored in time."""

    code = "tunnel-down"


class TunnelFailed(SocketpoolError):
    """Something unforeseen ended what keeps the connection; it is not made again."""

    code = "tunnel-failed"
