"""Renews a lease in a thread, and releases it at the end of a block."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from socketpool.errors import NotAuthorised, SocketpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from socketpool.client.answers import ClientLease, LeaseHold
    from socketpool.client.leaser import Leaser


@contextmanager
def leased(
    client: Leaser,
    services: list[str],
    *,
    wait: float,
    ttl: float | None = None,
    lost: Callable[[], object] = lambda: None,
) -> Iterator[ClientLease]:
    """A lease for the length of a ``with`` block, kept alive as by `renewed`."""
    lease = client.acquire(services, wait=wait, ttl=ttl)
    try:
        with renewed(client, lease, lost=lost):
            yield lease
    finally:
        # One that can't be told is reclaimed after its time to live.
        with suppress(SocketpoolError):
            client.release(lease.id)


@contextmanager
def renewed(
    client: Leaser,
    lease: LeaseHold,
    *,
    lost: Callable[[], object] = lambda: None,
    join_seconds: float = 1.0,
) -> Iterator[None]:
    """Renew a lease for the length of a ``with`` block, three times in each time to live.

    ``lost`` is called from another thread when the pool says that the lease has ended.  The end of
    the block waits up to ``join_seconds`` for a renewal that is under way.
    """
    stop = threading.Event()
    thread = threading.Thread(
        target=_renew, args=(client, lease, stop, lost), daemon=True, name="lease-renewal"
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=join_seconds)


def _renew(
    client: Leaser, lease: LeaseHold, stop: threading.Event, lost: Callable[[], object]
) -> None:
    # Signals are for the main thread, which may be waiting for them itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        while not stop.wait(lease.ttl / 3):
            try:
                client.renew(lease.id)
            except NotAuthorised:
                if not stop.is_set():  # else we have just released it ourselves
                    lost()
                return
            except SocketpoolError:
                continue  # two more tries before it runs out
    finally:
        client.close()
