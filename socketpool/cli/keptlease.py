"""A lease for as long as a tunnel stands; with ``keep`` it is taken again when it has ended."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from socketpool.client.renewal import renewed
from socketpool.errors import NotAuthorised, SocketpoolError
from socketpool.tunnel.reconnect import DIAL_SECONDS
from socketpool.tunnel.threads import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.client.answers import ClientLease
    from socketpool.client.api import PoolClient

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0


class KeptLease:
    """Acquires, renews and gives back a lease of the same services."""

    def __init__(
        self,
        client: PoolClient,
        services: list[str],
        *,
        wait: float,
        ttl: float | None,
        keep: bool,
        again: Callable[[ClientLease], None],
        note: Callable[[str], None],
    ) -> None:
        """``again`` is told of each lease that follows the first, ``note`` why there is none."""
        self._client = client
        self._services = services
        self._wait, self._ttl = wait, ttl
        self._keep = keep
        self._again = again
        self._note = note
        self._changed = threading.Condition()
        self._lease: ClientLease | None = None
        self._stopped = False
        self.lost = threading.Event()
        """The lease has ended, and no other will be taken."""

    def __enter__(self) -> Self:
        """Raises what prevents the first lease."""
        self._lease = self._acquire()
        self._thread = start("lease-keep", self._run, self._lease)
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            lease, self._lease = self._lease, None
            self._changed.notify_all()
        if lease is not None:
            with suppress(SocketpoolError):  # one that can't be told ends by itself
                self._client.release(lease.id)
        self._thread.join(1)

    @property
    def lease(self) -> ClientLease:
        """The one that holds now; waits, bounded, for one that is being taken again.

        Raises NotAuthorised when there is none.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._lease is not None or self._stopped or self.lost.is_set(),
                DIAL_SECONDS,
            )
            if self._lease is None:
                raise NotAuthorised("the lease has ended, and there is no other yet")
            return self._lease

    def _acquire(self) -> ClientLease:
        return self._client.acquire(self._services, wait=self._wait, ttl=self._ttl)

    def _run(self, lease: ClientLease) -> None:
        current: ClientLease | None = lease
        while current is not None:
            ended = threading.Event()
            with renewed(self._client, current, lost=lambda: self._end(ended)):  # noqa: B023
                if not self._await_end(ended):
                    return
            if not self._keep:
                self.lost.set()
                with self._changed:
                    self._changed.notify_all()
                return
            self._note(f"lease {current.id} has ended; another is being taken")
            current = self._take_again()

    def _await_end(self, ended: threading.Event) -> bool:
        """Whether the lease has ended; False when it is no longer wanted."""
        with self._changed:
            self._changed.wait_for(lambda: ended.is_set() or self._stopped)
            if self._stopped:
                return False
            self._lease = None
            return True

    def _end(self, ended: threading.Event) -> None:
        with self._changed:
            ended.set()
            self._changed.notify_all()

    def _take_again(self) -> ClientLease | None:
        pause, said = FIRST_PAUSE, ""
        while True:
            try:
                lease = self._acquire()
            except SocketpoolError as error:
                if error.message != said:
                    said = error.message
                    self._note(said)
            else:
                with self._changed:
                    stopped = self._stopped
                    if not stopped:
                        self._lease = lease
                        self._changed.notify_all()
                if stopped:
                    with suppress(SocketpoolError):
                        self._client.release(lease.id)
                    return None
                self._again(lease)
                return lease
            with self._changed:
                if self._changed.wait_for(lambda: self._stopped, pause):
                    return None
            pause = min(pause * 2, LONGEST_PAUSE)
