"""The HTTP API of the pool server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi import Path as PathParameter
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

import socketpool
from socketpool.core.permissions import OPERATOR
from socketpool.server.api.auth import CLIENT, Guard
from socketpool.server.api.operatorroutes import operation_routes
from socketpool.server.api.problems import ON_ERROR
from socketpool.server.api.schema import (
    GrantedLease,
    InstanceView,
    LeaseRequest,
    LeaseView,
    PoolReadiness,
    Problem,
    RequestHistoryView,
    ServiceView,
)
from socketpool.server.api.views import history_view, lease_facts, services_host
from socketpool.server.leases.terms import LeaseTerms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from socketpool.server.poolmanager import PoolManager

SHOWS_TOKEN = Security(HTTPBearer(auto_error=False, description="the pool's API token"))
"""Only describes: `Guard` has checked the token before any route is looked for."""

LeaseId = Annotated[str, PathParameter(max_length=64)]


def make_app(manager: PoolManager) -> ASGIApp:
    """The application; its lifetime is the pool manager's."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with manager.running():
            yield

    app: FastAPI = FastAPIOffline(
        redoc_url=None,
        title="socketpool",
        version=socketpool.__version__,
        description=(
            "Leases on supervised services. Every request but the health checks needs "
            "`Authorization: Bearer <API token>`."
        ),
        lifespan=lifespan,
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
    )
    for error, handler in ON_ERROR.items():
        app.add_exception_handler(error, handler)
    _add_lease_routes(app, manager)
    app.include_router(_view_routes(manager))
    app.include_router(operation_routes(manager, [SHOWS_TOKEN]))
    app.include_router(_health_routes(manager))
    return Guard(app, manager.client_of)


def _add_lease_routes(app: FastAPI, manager: PoolManager) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 403, 404, 409, 422, 429, 503)
    }

    async def create_lease(wanted: LeaseRequest, request: Request) -> GrantedLease:
        """Lease one instance of each named service, all or nothing, in the order asked."""
        ttl = wanted.ttl if wanted.ttl is not None else manager.settings.lease.ttl
        lease = await manager.leases.acquire(
            LeaseTerms(tuple(wanted.services), ttl, wanted.key, wanted.wait, request.scope[CLIENT]),
            partial(_disconnected, request),
        )
        return GrantedLease(
            token=manager.leases.token(lease),
            **lease_facts(manager, lease, services_host(manager, request.scope["server"])),
        )

    async def list_leases(request: Request) -> list[LeaseView]:
        """All live leases of the client, without their tokens; with the pool's own token, all."""
        host = services_host(manager, request.scope["server"])
        live = manager.leases.live(request.scope[CLIENT])
        return [LeaseView(**lease_facts(manager, lease, host)) for lease in live]

    async def show_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """One live lease, without its token."""
        host = services_host(manager, request.scope["server"])
        lease = manager.leases.get(lease_id, request.scope[CLIENT])
        return LeaseView(**lease_facts(manager, lease, host))

    async def explain_lease(reference: LeaseId, request: Request) -> RequestHistoryView:
        """What was asked, waited and granted under the id of a lease, or why it was refused."""
        return history_view(manager.leases.histories.find(reference), request.scope[CLIENT])

    async def renew_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """Give the lease another time to live, within its maximum age."""
        host = services_host(manager, request.scope["server"])
        lease = manager.leases.renew(lease_id, request.scope[CLIENT])
        return LeaseView(**lease_facts(manager, lease, host))

    async def release_lease(lease_id: LeaseId, request: Request) -> None:
        """End the lease: its workspace is wiped and its instances go back to the pool."""
        manager.leases.release(lease_id, request.scope[CLIENT])

    for method, path, endpoint, status in (
        ("POST", "/v1/leases", create_lease, 201),
        ("DELETE", "/v1/leases/{lease_id}", release_lease, 204),
        ("POST", "/v1/leases/{lease_id}/renew", renew_lease, 200),
        ("GET", "/v1/leases", list_leases, 200),
        ("GET", "/v1/leases/{lease_id}", show_lease, 200),
        ("GET", "/v1/leases/{reference}/story", explain_lease, 200),
    ):
        app.router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            tags=["leases"],
            dependencies=[SHOWS_TOKEN],
            responses=problems,
        )


def _view_routes(manager: PoolManager) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["pool"], dependencies=[SHOWS_TOKEN])

    @router.get("/services")
    async def list_services(request: Request) -> list[ServiceView]:
        """The catalogue, as far as it is for the client."""
        may_lease = manager.client(request.scope[CLIENT]).may_lease
        return [
            ServiceView(
                service=service.name,
                description=service.description,
                client=service.client,
                url=service.url,
                warm=service.warm,
                max=service.max,
                instances=manager.count(service.name),
            )
            for service in manager.settings.services.values()
            if may_lease(service.name)
        ]

    @router.get("/instances")
    async def list_instances(request: Request) -> list[InstanceView]:
        """Every instance by service and port; for a named client, those of its own leases."""
        client = request.scope[CLIENT]
        leases = manager.leases.live(client)
        holder = {grant.port: lease.id for lease in leases for grant in lease.grants}
        return [
            InstanceView(
                instance=i.name,
                service=i.service,
                port=i.port,
                state=i.state,
                pid=i.pid,
                lease=holder.get(i.port),
                failures=i.failures,
                last_words=manager.instances.last_lines(i.port),
            )
            for i in sorted(manager.pool.instances.values(), key=lambda i: (i.service, i.port))
            if client == OPERATOR or i.port in holder
        ]

    return router


def _health_routes(manager: PoolManager) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, bool]:
        """The server answers."""
        return {"live": True}

    @router.get("/readyz", responses={503: {"model": PoolReadiness}})
    async def readyz(response: Response) -> PoolReadiness:
        """Every service of the catalogue has been started up."""
        if not manager.ready:
            response.status_code = 503
        return PoolReadiness(ready=manager.ready)

    return router


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
