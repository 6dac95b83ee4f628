"""Group commit: changes that arrive while one commit is under way share the next.

A sync of the disk costs the same for one change and for a hundred.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from socketpool.errors import StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from socketpool.store.contract import Change, LeaseStore

LATER_SECONDS = 0.05
"""How long a change that nobody waits for may wait for company."""

log = logging.getLogger("socketpool.groupcommit")

_Entry = tuple["Change", "Callable[[StoreError | None], None]"]


class GroupCommit:
    """Makes changes durable in the order in which they were given.

    Whoever gave one is called back on ``loop`` when it is durable, or with a :class:`StoreError`.
    """

    def __init__(self, store: LeaseStore, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._store = store
        self._pending: list[_Entry] = []
        self._committing = False
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
        # A thread and queues of its own: an executor's futures cost more than what they carry.
        self._batches: SimpleQueue[list[_Entry] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._commit_batches, name="store", daemon=True)
        self._thread.start()

    def write(self, change: Change, then: Callable[[StoreError | None], None]) -> None:
        """Make the change durable now, together with others."""
        self._pending.append((change, then))
        self._start()

    def write_later(self, change: Change, then: Callable[[StoreError | None], None]) -> None:
        """As `write`, for what nobody waits for: it goes with the next change, or soon alone."""
        self._pending.append((change, then))
        if self._timer is None and not self._committing:
            self._timer = self.loop.call_later(LATER_SECONDS, self._start)

    async def close(self) -> None:
        """Finish what was given, then close the store."""
        self._start()
        if self._committing:
            self._idle = self.loop.create_future()
            await self._idle
        self._batches.put(None)
        self._thread.join()
        self._store.close()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending and not self._committing:
            self._committing = True
            batch, self._pending = self._pending, []
            self._batches.put(batch)

    def _committed(self, batch: list[_Entry], failure: StoreError | None) -> None:
        self._committing = False
        self._start()
        for change, then in batch:
            try:
                then(failure)
            except Exception:
                # A bug; the others must hear of their changes all the same.
                log.exception("nobody took the news", extra={"change": str(change)})
        if self._idle is not None and not self._committing:
            self._idle.set_result(None)

    def _commit_batches(self) -> None:
        while (batch := self._batches.get()) is not None:
            self._commit(batch)

    def _commit(self, batch: list[_Entry]) -> None:
        failure: StoreError | None = None
        try:
            self._store.commit([change for change, _ in batch])
        except StoreError as error:
            failure = error
        except Exception as error:
            # A bug in the store; whoever waits must hear of it all the same.
            log.exception("store broke its contract")
            failure = StoreError(f"the store failed unexpectedly ({type(error).__name__})")
        with suppress(RuntimeError):  # the loop has been closed
            self.loop.call_soon_threadsafe(self._committed, batch, failure)
