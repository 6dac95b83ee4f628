"""The API's requests and answers, as its OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from socketpool.core.servicekinds import ServiceKind
from socketpool.defaults import MAX_DURATION_SECONDS, MAX_WAIT_SECONDS

MAX_SERVICES = 16

_Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class LeaseRequest(BaseModel):
    """Ask for one instance of each service, all or nothing; one named twice gives two."""

    model_config = ConfigDict(extra="forbid")

    services: Annotated[list[_Name], Field(min_length=1, max_length=MAX_SERVICES)]
    ttl: Annotated[float, Field(ge=1, le=MAX_DURATION_SECONDS, description="seconds")] | None = None
    key: Annotated[
        str,
        StringConstraints(max_length=128),
        Field(description="a request key of the client's: asked again, the same lease comes back"),
    ] = ""
    wait: Annotated[
        float, Field(ge=0, le=MAX_WAIT_SECONDS, description="seconds to wait for capacity")
    ] = 10.0


class LeasedServiceView(BaseModel):
    """Where one service of a lease is reached, and what is to be done with it."""

    service: str
    host: str
    port: int
    instance: str
    client: ServiceKind | None = Field(
        description="the client portion it works with; null for a plain one"
    )
    url: str = Field(description="the form of its URL: {host} and {port} are to be filled in")


class LeaseView(BaseModel):
    """A live lease."""

    lease: str
    ttl: float
    expires_in: float
    created: float = Field(description="seconds since the epoch")
    services: list[LeasedServiceView]


class GrantedLease(LeaseView):
    """A lease with the token that its services ask for."""

    token: str


class RequestHistoryView(BaseModel):
    """What became of a request for a lease; times are seconds since the epoch."""

    client: str = Field(description="empty for the pool's own token")
    services: list[str]
    ttl: float
    wait: float
    asked: float
    ahead: int | None = Field(description="requests that waited before it; null: it did not wait")
    decided: float
    refusal: str = Field(description="why it got no lease; empty when it did")
    lease: str | None
    generation: int | None
    instances: list[str]
    renewals: int
    ended: float | None
    how: str = Field(description="released or expired; empty while the lease lives")


class ServiceView(BaseModel):
    """A service of the catalogue and how many instances are in which state."""

    service: str
    description: str
    client: ServiceKind | None
    url: str = Field(description="the form of its URL")
    warm: int
    max: int
    instances: dict[str, int]


class InstanceView(BaseModel):
    """One supervisor program."""

    instance: str
    service: str
    port: int
    state: str
    pid: int
    lease: str | None
    failures: int = Field(description="how often it failed since it last worked for long")
    last_words: list[str] = Field(description="the end of its log when it failed")


class PoolReadiness(BaseModel):
    """Whether every service has been started up."""

    ready: bool


class Problem(BaseModel):
    """Problem details (RFC 9457) with a stable ``code``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    reference: str = Field("", description="`socketpool explain` knows more under this")
