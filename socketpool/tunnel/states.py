"""The tunnel's lifecycle as a table; `docs/lifecycles.md` draws it."""

from __future__ import annotations

from enum import StrEnum

from socketpool.core.lifecycle import Machine


class TunnelState(StrEnum):
    """Where a tunnel is."""

    NEW = "new"
    UP = "up"
    RECONNECTING = "reconnecting"  # new streams wait for it; listeners stay
    REFUSED = "refused"  # the host's key changed, or it no longer takes ours: trying is no use
    FAILED = "failed"  # a bug of ours or of a library ended what keeps it
    CLOSED = "closed"


class TunnelEvent(StrEnum):
    """What can happen to a tunnel."""

    CONNECTED = "connected"
    LOST = "lost"
    REJECTED = "rejected"
    BROKE = "broke"
    CLOSE = "close"


TUNNEL = Machine[TunnelState, TunnelEvent](
    {
        (TunnelState.NEW, TunnelEvent.CONNECTED): TunnelState.UP,
        (TunnelState.NEW, TunnelEvent.CLOSE): TunnelState.CLOSED,
        (TunnelState.UP, TunnelEvent.LOST): TunnelState.RECONNECTING,
        (TunnelState.UP, TunnelEvent.BROKE): TunnelState.FAILED,
        (TunnelState.UP, TunnelEvent.CLOSE): TunnelState.CLOSED,
        (TunnelState.RECONNECTING, TunnelEvent.CONNECTED): TunnelState.UP,
        (TunnelState.RECONNECTING, TunnelEvent.REJECTED): TunnelState.REFUSED,
        (TunnelState.RECONNECTING, TunnelEvent.BROKE): TunnelState.FAILED,
        (TunnelState.RECONNECTING, TunnelEvent.CLOSE): TunnelState.CLOSED,
        (TunnelState.REFUSED, TunnelEvent.CLOSE): TunnelState.CLOSED,
        (TunnelState.FAILED, TunnelEvent.CLOSE): TunnelState.CLOSED,
    }
)
