"""The HTTP API of the pool server."""

from __future__ import annotations

import ipaddress
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import socketpool
from socketpool.config.fields import EVERYWHERE
from socketpool.core.clients import OPERATOR
from socketpool.errors import ConfigError, NoCapacity, SocketpoolError, UsageError
from socketpool.server.asking import Ask, KeyReused, NoSuchLease, ServiceForbidden, ServiceUnknown
from socketpool.server.drains import NoSuchTarget
from socketpool.server.guard import CLIENT, Guard, problem
from socketpool.server.hotroute import HotRoute
from socketpool.server.operations import OperatorOnly, operation_routes
from socketpool.server.schema import (
    GrantedLease,
    InstanceView,
    LeasedService,
    LeaseRequest,
    LeaseView,
    Problem,
    Readiness,
    ServiceView,
    StoryView,
)
from socketpool.store.contract import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from socketpool.core.records import Lease
    from socketpool.server.keeper import Keeper
    from socketpool.server.stories import Story

SHOWS_TOKEN = Security(HTTPBearer(auto_error=False, description="the pool's API token"))
"""Only describes: `Guard` has checked the token before any route is looked for."""

LeaseId = Annotated[str, PathParameter(max_length=64)]

STATUS: dict[type[SocketpoolError], int] = {
    ServiceForbidden: 403,
    OperatorOnly: 403,
    ServiceUnknown: 404,
    NoSuchLease: 404,
    NoSuchTarget: 404,
    KeyReused: 409,
    UsageError: 422,
    ConfigError: 422,
    NoCapacity: 503,
    StoreError: 503,
}

RETRY_AFTER_SECONDS = 5


def make_app(keeper: Keeper) -> FastAPI:
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
    app.add_middleware(Guard, client_of=keeper.client_of)
    app.add_exception_handler(SocketpoolError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    _add_lease_routes(app, keeper)
    app.include_router(_view_routes(keeper))
    app.include_router(operation_routes(keeper, [SHOWS_TOKEN]))
    app.include_router(_health_routes(keeper))
    return app


def _add_lease_routes(app: FastAPI, keeper: Keeper) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 403, 404, 409, 422, 503)
    }

    async def create_lease(ask: LeaseRequest, request: Request) -> GrantedLease:
        """Lease one instance of each named service, all or nothing, in the order asked."""
        ttl = ask.ttl if ask.ttl is not None else keeper.settings.lease.ttl
        lease = await keeper.leases.acquire(
            Ask(tuple(ask.services), ttl, ask.key, ask.wait, request.scope[CLIENT]),
            partial(_disconnected, request),
        )
        return GrantedLease(
            token=keeper.leases.token(lease), **_facts(keeper, lease, _host(keeper, request))
        )

    async def list_leases(request: Request) -> list[LeaseView]:
        """All live leases of the client, without their tokens; with the pool's own token, all."""
        host = _host(keeper, request)
        live = keeper.leases.live(request.scope[CLIENT])
        return [LeaseView(**_facts(keeper, lease, host)) for lease in live]

    async def show_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """One live lease, without its token."""
        lease = keeper.leases.get(lease_id, request.scope[CLIENT])
        return LeaseView(**_facts(keeper, lease, _host(keeper, request)))

    async def explain_lease(reference: LeaseId, request: Request) -> StoryView:
        """What was asked, waited and granted under the id of a lease, or why it was refused."""
        return _story(keeper.leases.stories.find(reference), request.scope[CLIENT])

    async def renew_lease(lease_id: LeaseId, request: Request) -> LeaseView:
        """Give the lease another time to live, within its maximum age."""
        lease = keeper.leases.renew(lease_id, request.scope[CLIENT])
        return LeaseView(**_facts(keeper, lease, _host(keeper, request)))

    async def release_lease(lease_id: LeaseId, request: Request) -> None:
        """End the lease: its workspace is wiped and its instances go back to the pool."""
        keeper.leases.release(lease_id, request.scope[CLIENT])

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
            route_class_override=HotRoute if method != "GET" else None,
        )


def _view_routes(keeper: Keeper) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["pool"], dependencies=[SHOWS_TOKEN])

    @router.get("/services")
    async def list_services(request: Request) -> list[ServiceView]:
        """The catalogue, as far as it is for the client."""
        may_lease = keeper.client(request.scope[CLIENT]).may_lease
        return [
            ServiceView(
                service=service.name,
                description=service.description,
                client=service.client,
                warm=service.warm,
                max=service.max,
                instances=keeper.count(service.name),
            )
            for service in keeper.settings.services.values()
            if may_lease(service.name)
        ]

    @router.get("/instances")
    async def list_instances(request: Request) -> list[InstanceView]:
        """Every instance by service and port; for a named client, those of its own leases."""
        client = request.scope[CLIENT]
        leases = keeper.leases.live(client)
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
                last_words=keeper.instances.last_words.get(i.port, []),
            )
            for i in sorted(keeper.pool.instances.values(), key=lambda i: (i.service, i.port))
            if client == OPERATOR or i.port in holder
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


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _facts(keeper: Keeper, lease: Lease, host: str) -> dict[str, Any]:
    """The fields of a `LeaseView`."""
    return {
        "lease": lease.id,
        "ttl": lease.ttl,
        "expires_in": keeper.seconds_left(lease),
        "created": keeper.leases.created(lease),
        "services": [
            LeasedService(
                service=grant.service,
                host=host,
                port=grant.port,
                instance=grant.instance,
                client=keeper.portion_of(grant.service),
            )
            for grant in lease.grants
        ],
    }


def _story(story: Story | None, client: str) -> StoryView:
    if story is None or client not in {OPERATOR, story.ask.client}:
        raise NoSuchLease(
            "nothing is known of that lease or refusal, or not any more",
            hint="the pool server remembers the latest; its log goes further back",
        )
    lease = story.lease
    return StoryView(
        client=story.ask.client,
        services=list(story.ask.services),
        ttl=story.ask.ttl if lease is None else lease.ttl,
        wait=story.ask.wait,
        asked=story.asked,
        ahead=story.ahead,
        decided=story.decided,
        refusal=story.refusal,
        lease=None if lease is None else lease.id,
        generation=None if lease is None else lease.generation,
        instances=[] if lease is None else [grant.instance for grant in lease.grants],
        renewals=story.renewals,
        ended=story.ended or None,
        how=story.how,
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


def _host(keeper: Keeper, request: Request) -> str:
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
