"""The pool's API for asyncio: a facade that runs `PoolClient` in worker threads.

There is one implementation of the protocol, with its retries and errors.  Each call has a thread of
its own, so that calls that wait for capacity never keep a release from being sent, and a connection
of its own.  Trio is not supported.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from socketpool.client.api import lease_lost
from socketpool.client.dial import await_answer
from socketpool.client.renewal import renewed
from socketpool.defaults import WAIT_SECONDS
from socketpool.errors import SocketpoolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from socketpool.client.answers import (
        ClientLease,
        DrainProgress,
        InstanceStatus,
        LeasedService,
        LeaseHistory,
        LeaseStatus,
        PoolStatus,
        ReloadResult,
        ServiceDescription,
    )
    from socketpool.client.api import PoolClient

T = TypeVar("T")


class AsyncPoolClient:
    """An asynchronous client of one pool server; `socketpool.client.connect_async` makes one.

    Each method does what the method of the same name of `PoolClient` does, raises the same errors,
    and doesn't block the event loop.  A cancelled call is cut off at the server: it waits for
    nothing more, and a lease that was granted in that moment is released.
    """

    def __init__(self, pool: PoolClient) -> None:
        self._pool = pool

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()

    @overload
    def lease(
        self, service: str, /, *, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> AbstractAsyncContextManager[LeasedService]: ...
    @overload
    def lease(
        self,
        first: str,
        second: str,
        /,
        *more: str,
        ttl: float | None = None,
        wait: float = WAIT_SECONDS,
    ) -> AbstractAsyncContextManager[ClientLease]: ...
    def lease(
        self, *services: str, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> AbstractAsyncContextManager[Any]:
        """Lease services for the length of an ``async with`` block; see `PoolClient.lease`."""
        return self._lease(services, ttl=ttl, wait=wait)

    @asynccontextmanager
    async def hold(
        self,
        services: Sequence[str],
        *,
        ttl: float | None = None,
        wait: float = WAIT_SECONDS,
        lost: Callable[[], object] | None = None,
    ) -> AsyncIterator[ClientLease]:
        """As `PoolClient.hold`; ``lost`` is called in the event loop's thread."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        notify = lost or ended.set
        lease = await self.acquire(services, ttl=ttl, wait=wait)
        try:
            with renewed(
                self._pool, lease, lost=lambda: loop.call_soon_threadsafe(notify), join_seconds=0
            ):
                for service in lease.services:
                    await self._call(partial(_await_answer, service))
                yield lease
        finally:
            with suppress(SocketpoolError):  # the lease ends after its time to live
                await asyncio.shield(self.release(lease.id))
        if ended.is_set():
            raise lease_lost(lease.id)

    async def acquire(
        self, services: Sequence[str], *, ttl: float | None = None, wait: float = WAIT_SECONDS
    ) -> ClientLease:
        """See `PoolClient.acquire`; the caller renews and releases the lease."""
        names, key = list(services), secrets.token_hex(16)

        def undo() -> None:
            # The reply may have been cut off: under the same key comes the same lease.
            self._pool.release(self._pool.acquire(names, ttl=ttl, wait=0, key=key).id)

        return await self._call(
            lambda pool: pool.acquire(names, ttl=ttl, wait=wait, key=key), undo=undo
        )

    async def renew(self, lease_id: str) -> float:
        """See `PoolClient.renew`."""
        return await self._call(lambda pool: pool.renew(lease_id))

    async def release(self, lease_id: str) -> None:
        """See `PoolClient.release`."""
        await self._call(lambda pool: pool.release(lease_id))

    async def leases(self) -> list[LeaseStatus]:
        """See `PoolClient.leases`."""
        return await self._call(lambda pool: pool.leases())

    async def history(self, reference: str) -> LeaseHistory:
        """See `PoolClient.history`."""
        return await self._call(lambda pool: pool.history(reference))

    async def services(self) -> list[ServiceDescription]:
        """See `PoolClient.services`."""
        return await self._call(lambda pool: pool.services())

    async def instances(self) -> list[InstanceStatus]:
        """See `PoolClient.instances`."""
        return await self._call(lambda pool: pool.instances())

    async def status(self) -> PoolStatus:
        """See `PoolClient.status`."""
        return await self._call(lambda pool: pool.status())

    async def drain(self, target: str, *, undo: bool = False) -> DrainProgress:
        """See `PoolClient.drain`."""
        return await self._call(lambda pool: pool.drain(target, undo=undo))

    async def reload(self) -> ReloadResult:
        """See `PoolClient.reload`."""
        return await self._call(lambda pool: pool.reload())

    async def check_alive(self) -> None:
        """See `PoolClient.check_alive`."""
        await self._call(lambda pool: pool.check_alive())

    @asynccontextmanager
    async def _lease(
        self, services: Sequence[str], *, ttl: float | None, wait: float
    ) -> AsyncIterator[LeasedService | ClientLease]:
        async with self.hold(services, ttl=ttl, wait=wait) as lease:
            yield lease.services[0] if len(services) == 1 else lease

    async def _call(
        self, function: Callable[[PoolClient], T], *, undo: Callable[[], object] | None = None
    ) -> T:
        """Run the function in a thread, with a client that is aborted when we are cancelled.

        Then ``undo`` is called in the thread, once the function has returned.
        """
        pool = self._pool.clone()
        executor = ThreadPoolExecutor(1, thread_name_prefix="socketpool-async")
        running = executor.submit(function, pool)
        answer = asyncio.wrap_future(running)
        answer.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            pool.abort()
            undone = executor.submit(self._undo, undo)
            await asyncio.shield(asyncio.wrap_future(undone))  # a thread finishes it in any case
            raise
        finally:
            executor.submit(pool.close)  # each thread has its own connection
            executor.shutdown(wait=False)

    def _undo(self, undo: Callable[[], object] | None) -> None:
        if undo is not None:
            with suppress(SocketpoolError):
                undo()
            self._pool.close()


def _retrieve(answer: asyncio.Future[Any]) -> None:
    """Mark the error of a call that nobody waits for as seen."""
    if not answer.cancelled():
        answer.exception()


def _await_answer(service: LeasedService, pool: PoolClient) -> None:
    await_answer(service.host, service.port, pool.dial)
