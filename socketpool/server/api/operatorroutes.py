"""The routes for operators: the state of the pool, drains, and reloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from socketpool.core.permissions import OPERATOR
from socketpool.errors import OperatorOnly
from socketpool.server.api.auth import CLIENT
from socketpool.server.api.schema import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from socketpool.server.poolmanager import PoolManager


class ForeignListener(BaseModel):
    """A program that listens on a port of the pool and is none of its instances."""

    port: int
    pid: int = Field(description="0 where the kernel doesn't tell")
    program: str


class PoolView(BaseModel):
    """What concerns the pool as a whole."""

    ports: str
    drained: list[str] = Field(description="services and instances; * for the whole pool")
    foreign: list[ForeignListener]
    refused_files: list[str] = Field(
        description="files in conf.d that supervisord could not read, set aside"
    )


class DrainRequest(BaseModel):
    """Let nobody have these any more, and stop what nobody has."""

    model_config = ConfigDict(extra="forbid")

    target: Annotated[
        str,
        StringConstraints(max_length=64),
        Field(description="a service, or an instance as upload:21000; empty for the whole pool"),
    ] = ""
    undo: bool = Field(default=False, description="take the drain back")


class DrainView(BaseModel):
    """How far a drain is."""

    leased: int = Field(description="instances that still belong to a lease")
    stopped: bool = Field(description="whether all of them have come to rest")


class ReloadView(BaseModel):
    """The services that are not as they were."""

    added: list[str]
    changed: list[str] = Field(description="their instances are restarted one by one")
    removed: list[str] = Field(description="their instances go when their leases end")


def operation_routes(manager: PoolManager, dependencies: Sequence[Any]) -> APIRouter:
    """Routes under ``/v1`` for the operator; ``dependencies`` describe how all are protected."""
    router = APIRouter(
        prefix="/v1", tags=["operation"], dependencies=[*dependencies, Depends(_check_operator)]
    )
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 403, 404, 422)
    }
    drains = manager.instances.drains

    @router.get("/pool")
    async def show_pool() -> PoolView:
        """The pool as a whole, and what an operator should know of it."""
        return PoolView(
            ports=str(manager.pool.ports),
            drained=sorted(drains.names),
            foreign=[
                ForeignListener(port=f.port, pid=f.pid, program=f.program)
                for f in manager.reconciler.foreign
            ],
            refused_files=manager.instances.blocks.refused_files(),
        )

    @router.post("/drain", responses=problems)
    async def drain(wanted: DrainRequest) -> DrainView:
        """Drain an instance, a service or the pool, or take that back; asked again, it is told how
        far it is."""
        if wanted.undo:
            drains.resume(wanted.target)
        else:
            drains.drain(wanted.target)
        return DrainView(leased=drains.held(wanted.target), stopped=drains.stopped(wanted.target))

    @router.post("/reload", responses=problems)
    async def reload() -> ReloadView:
        """Read the pool's file and its catalogue again, and apply what has changed.

        A file with a mistake is refused whole, and everything stays as it was.
        """
        new = await manager.reload()
        return ReloadView(
            added=list(new.added), changed=list(new.changed), removed=list(new.removed)
        )

    return router


def _check_operator(request: Request) -> None:
    if request.scope[CLIENT] != OPERATOR:
        raise OperatorOnly(
            "this is for the pool's operator", hint="use the token of the pool's state directory"
        )
