"""The HTTP API of the pool server."""

from __future__ import annotations

import asyncio
import ipaddress
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import socketpool
from socketpool.config.fields import EVERYWHERE
from socketpool.errors import NoCapacity, SocketpoolError, UsageError
from socketpool.server.guard import Guard, problem
from socketpool.server.leases import Ask, KeyReused, NoSuchLease, ServiceUnknown
from socketpool.server.schema import (
    GrantedLease,
    InstanceView,
    LeasedService,
    LeaseRequest,
    LeaseView,
    Problem,
    Readiness,
    ServiceView,
)
from socketpool.store.contract import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from socketpool.core.records import Lease
    from socketpool.server.keeper import Keeper

SHOWS_TOKEN = Security(HTTPBearer(auto_error=False, description="the pool's API token"))
"""Only describes: `Guard` has checked the token before any route is looked for."""

LeaseId = Annotated[str, PathParameter(max_length=64)]

STATUS: dict[type[SocketpoolError], int] = {
    ServiceUnknown: 404,
    NoSuchLease: 404,
    KeyReused: 409,
    UsageError: 422,
    NoCapacity: 503,
    StoreError: 503,
}

RETRY_AFTER_SECONDS = 5


class ClientGone(SocketpoolError):
    """The client hung up; nobody reads this answer."""

    code = "client-gone"


def make_app(keeper: Keeper, token: str) -> FastAPI:
    """The application; its lifetime is the keeper's."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with keeper.running():
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
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(SocketpoolError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.include_router(_lease_routes(keeper))
    app.include_router(_view_routes(keeper))
    app.include_router(_health_routes(keeper))
    return app


def _lease_routes(keeper: Keeper) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["leases"], dependencies=[SHOWS_TOKEN])
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 404, 409, 422, 503)
    }

    @router.post("/leases", status_code=201, responses=problems)
    async def create_lease(ask: LeaseRequest, request: Request) -> GrantedLease:
        """Lease one instance of each named service, all or nothing, in the order asked."""
        ttl = ask.ttl if ask.ttl is not None else keeper.settings.lease.ttl
        wanted = keeper.leases.acquire(Ask(tuple(ask.services), ttl, ask.key, ask.wait))
        lease = await _unless_gone(request, wanted)
        view = _view(keeper, lease, _services_host(keeper, request))
        return GrantedLease(**view.model_dump(), token=keeper.leases.token(lease))

    @router.get("/leases", responses={401: problems[401]})
    async def list_leases(request: Request) -> list[LeaseView]:
        """All live leases, without their tokens."""
        host = _services_host(keeper, request)
        return [_view(keeper, lease, host) for lease in keeper.leases.live()]

    @router.get("/leases/{lease_id}", responses=problems)
    async def show_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """One live lease, without its token."""
        return _view(keeper, keeper.leases.get(lease_id), _services_host(keeper, request))

    @router.post("/leases/{lease_id}/renew", responses=problems)
    async def renew_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """Give the lease another time to live, within its maximum age."""
        return _view(keeper, keeper.leases.renew(lease_id), _services_host(keeper, request))

    @router.delete("/leases/{lease_id}", status_code=204, responses=problems)
    async def release_lease(lease_id: LeaseId) -> Response:
        """End the lease: its workspace is wiped and its instances go back to the pool."""
        await keeper.leases.release(lease_id)
        return Response(status_code=204)

    return router


def _view_routes(keeper: Keeper) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["pool"], dependencies=[SHOWS_TOKEN])

    @router.get("/services")
    async def list_services() -> list[ServiceView]:
        """The catalogue."""
        return [
            ServiceView(
                service=service.name,
                description=service.description,
                client=service.client,
                url=service.url,
                warm=service.warm,
                max=service.max,
                instances=keeper.count(service.name),
            )
            for service in keeper.settings.services.values()
        ]

    @router.get("/instances")
    async def list_instances() -> list[InstanceView]:
        """Every instance by service and port."""
        holder = {g.port: lease.id for lease in keeper.pool.leases.values() for g in lease.grants}
        return [
            InstanceView(
                instance=i.name,
                service=i.service,
                port=i.port,
                state=i.state,
                pid=i.pid,
                lease=holder.get(i.port),
            )
            for i in sorted(keeper.pool.instances.values(), key=lambda i: (i.service, i.port))
        ]

    return router


def _health_routes(keeper: Keeper) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, bool]:
        """The server answers."""
        return {"live": True}

    @router.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """Every service of the catalogue has been started up."""
        if not keeper.ready:
            response.status_code = 503
        return Readiness(ready=keeper.ready)

    return router


async def _unless_gone(request: Request, wanted: Coroutine[Any, Any, Lease]) -> Lease:
    """Wait as long as the client does: one that has hung up must not be granted anything."""
    task = asyncio.create_task(wanted)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise ClientGone("the client did not wait for its lease")
        return await task
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _view(keeper: Keeper, lease: Lease, host: str) -> LeaseView:
    return LeaseView(
        lease=lease.id,
        ttl=lease.ttl,
        expires_in=keeper.seconds_left(lease),
        created=keeper.leases.created(lease),
        services=[
            LeasedService(
                service=grant.service,
                host=host,
                port=grant.port,
                instance=grant.instance,
                client=keeper.settings.services[grant.service].client,
                url=keeper.settings.services[grant.service].url,
            )
            for grant in lease.grants
        ],
    )


def _reached_host(request: Request) -> str:
    """The address at which the client reached us."""
    server = request.scope.get("server") or ("127.0.0.1", 0)
    host = str(server[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _services_host(keeper: Keeper, request: Request) -> str:
    """Where the services of a lease are for this client."""
    configured = keeper.settings.services_host
    if configured in {keeper.settings.listen.host, *EVERYWHERE}:
        return _reached_host(request)
    return configured


async def _on_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, SocketpoolError)  # noqa: S101 - how it is registered
    status = next((s for cls, s in STATUS.items() if isinstance(error, cls)), 500)
    return _problem_response(status, error)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - how it is registered
    sentences = []
    for detail in error.errors()[:5]:
        where = ".".join(str(part) for part in detail["loc"] if part != "body")
        sentences.append(f"{where}: {detail['msg'].removeprefix('Value error, ')}")
    return _problem_response(422, UsageError("; ".join(sentences)))


async def _on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - how it is registered
    response = _problem_response(error.status_code, UsageError(str(error.detail)))
    response.headers.update(error.headers or {})
    return response


def _problem_response(status: int, error: SocketpoolError) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return Response(problem(status, error), status, headers, media_type="application/problem+json")
