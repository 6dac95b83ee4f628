"""The client: a library for programs that lease services from a pool.

    from socketpool.client import connect

    with connect() as pool, pool.lease("redis") as redis:
        print(redis.url)

`connect` finds a pool and gives a `PoolClient`; `connect_async` gives an `AsyncPoolClient` for
asyncio.  Their answers are frozen dataclasses.  Errors are the classes of `socketpool.errors`, all
of them `SocketpoolError`, with ``code``, ``message``, ``hint`` and ``exit_code``.

A name is imported when it is first used: to import this package alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socketpool.client.answers import (
        ClientLease,
        DrainProgress,
        ForeignProgram,
        InstanceStatus,
        LeasedService,
        LeaseHistory,
        LeaseStatus,
        PoolStatus,
        ReloadResult,
        ServiceDescription,
    )
    from socketpool.client.api import PoolClient
    from socketpool.client.asyncclient import AsyncPoolClient
    from socketpool.client.connecting import connect, connect_async

__all__ = [
    "AsyncPoolClient",
    "ClientLease",
    "DrainProgress",
    "ForeignProgram",
    "InstanceStatus",
    "LeaseHistory",
    "LeaseStatus",
    "LeasedService",
    "PoolClient",
    "PoolStatus",
    "ReloadResult",
    "ServiceDescription",
    "connect",
    "connect_async",
]

_MODULES = {
    "AsyncPoolClient": "asyncclient",
    "PoolClient": "api",
    "connect": "connecting",
    "connect_async": "connecting",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'answers')}"), name)


def __dir__() -> list[str]:
    return __all__
