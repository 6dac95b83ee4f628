"""Group commit: changes that arrive while one commit is under way share the next.

A sync of the disk costs the same for one change and for a hundred.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from socketpool.store.contract import StoreError

if TYPE_CHECKING:
    from socketpool.store.contract import Change, LeaseStore

LATER_SECONDS = 0.05
"""How long a change that nobody waits for may wait for company."""

log = logging.getLogger("socketpool.journal")


class Journal:
    """Makes changes durable in the order in which they were given."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store
        self._pending: list[tuple[Change, asyncio.Future[None]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    def write(self, change: Change) -> asyncio.Future[None]:
        """A future that is done when the change is durable, or holds a :class:`StoreError`."""
        done = self._add(change)
        self._start()
        return done

    def write_later(self, change: Change) -> asyncio.Future[None]:
        """As `write`, for what nobody waits for: it goes with the next change, or soon alone."""
        done = self._add(change)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LATER_SECONDS, self._start)
        return done

    async def close(self) -> None:
        """Finish what was given, then close the store."""
        self._start()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()
        self._store.close()

    def _add(self, change: Change) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((change, done))
        return done

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._commit_all())

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            batch, self._pending = self._pending, []
            changes = [change for change, _ in batch]
            failure: StoreError | None = None
            try:
                await loop.run_in_executor(self._thread, self._store.commit, changes)
            except StoreError as error:
                failure = error
            except Exception as error:
                # A bug in the store; whoever waits must hear of it all the same.
                log.exception("store broke its contract")
                failure = StoreError(f"the store failed unexpectedly ({type(error).__name__})")
            for _, done in batch:
                if done.cancelled():
                    continue
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(failure)
