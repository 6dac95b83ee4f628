"""What the pool server answers, as frozen dataclasses.

Times are in seconds, moments in seconds since the epoch.  Fields that a newer server adds are
ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from socketpool.client.environment import fill_url
from socketpool.config.values import DEFAULT_URL, check_host, check_url
from socketpool.core.servicekinds import ServiceKind
from socketpool.defaults import MAX_DURATION_SECONDS

R = TypeVar("R")


def _known_kind(value: object) -> object:
    """None for a kind that only newer releases know: this release can't run it."""
    return None if isinstance(value, str) and value not in set(ServiceKind) else value


_Kind = Annotated[ServiceKind | None, BeforeValidator(_known_kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedService:
    """One leased instance of a service, and where it is reached."""

    service: str
    """The name of the service in the pool's catalogue."""
    host: Annotated[str, AfterValidator(check_host)]
    port: Annotated[int, Field(ge=1, le=65535)]
    instance: str
    """The name of the instance, such as ``redis:21007``."""
    client: _Kind = None
    """The kind of client that the service works with; None for a plain program."""
    url_template: Annotated[str, AfterValidator(check_url), Field(alias="url")] = DEFAULT_URL
    """The URL with ``{host}`` and ``{port}`` to be filled in."""

    @property
    def url(self) -> str:
        """The service's URL, such as ``redis://127.0.0.1:21007/0``."""
        return fill_url(self.url_template, self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHold:
    """What is needed to use a lease and to renew it."""

    id: Annotated[str, Field(alias="lease")]
    token: str = field(repr=False)
    """The secret that services written with the SDK ask for."""
    ttl: Annotated[float, Field(ge=1, le=MAX_DURATION_SECONDS)]
    """The time to live, in seconds: the lease ends when it isn't renewed for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLease(LeaseHold):
    """A granted lease: ``lease["redis"]`` is the service of that name."""

    services: tuple[LeasedService, ...]
    """The services in the order in which they were asked for."""

    def __getitem__(self, name: str) -> LeasedService:
        """The service of that name, the first if there are several; raises KeyError."""
        for service in self.services:
            if service.service == name:
                return service
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """A live lease, without its token."""

    id: Annotated[str, Field(alias="lease")]
    ttl: float
    expires_in: float
    """Seconds until it ends unless it is renewed."""
    created: float
    services: tuple[LeasedService, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHistory:
    """What became of one request for a lease."""

    client: str
    """The name of the client; empty for the operator's token."""
    services: tuple[str, ...]
    ttl: float
    wait: float
    """How long the client was willing to wait, in seconds."""
    asked: float
    ahead: int | None
    """How many requests waited before it; None when it did not wait."""
    decided: float
    refusal: str
    """Why no lease was granted; empty when one was."""
    lease: str | None
    generation: int | None
    """The number of the lease; a later lease has a higher one."""
    instances: tuple[str, ...]
    renewals: int
    ended: float | None
    """None while the lease lives."""
    how: str
    """``release`` or ``expire``; empty while the lease lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDescription:
    """A service of the catalogue."""

    service: str
    description: str = ""
    client: _Kind = None
    """The kind of client that it works with; None for a plain program."""
    url_template: Annotated[str, Field(alias="url")] = DEFAULT_URL
    """The URL of an instance with ``{host}`` and ``{port}`` to be filled in."""
    warm: int = 0
    """How many idle instances the pool keeps."""
    max: int = 0
    """How many instances there may be."""
    instances: dict[str, int] = field(default_factory=dict)
    """How many instances are in which state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One instance of a service: a program of the pool's supervisor."""

    instance: str
    service: str
    port: int
    state: str
    """A state of the diagram in docs/lifecycles.md, such as ``idle``."""
    pid: int
    """0 while there is no process."""
    lease: str | None
    failures: int
    """How often it failed since it last worked for long."""
    last_lines: Annotated[tuple[str, ...], Field(alias="last_words")]
    """The end of its log, once it has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignProgram:
    """A program that listens on a port of the pool and doesn't belong to the pool."""

    port: int
    pid: int
    """0 where the kernel doesn't tell."""
    program: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """What concerns the pool as a whole."""

    ports: str
    """The port range, such as ``21000-21999``."""
    drained: tuple[str, ...]
    """Services and instances that are drained; ``*`` for the whole pool."""
    foreign: tuple[ForeignProgram, ...]
    refused_files: tuple[str, ...]
    """Files in conf.d that supervisord can't read, and that were set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProgress:
    """How far a drain is."""

    leased: int
    """How many instances still belong to a lease."""
    stopped: bool
    """Whether all of them have stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadResult:
    """The names of the services that a reload has changed."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def parse_record(shape: type[R], answer: object) -> R:
    """The record in an answer of the API; raises ValueError when it isn't one."""
    return _adapter(shape).validate_python(answer)


def parse_record_json(shape: type[R], text: str | bytes) -> R:
    """As `parse_record`, from JSON."""
    return _adapter(shape).validate_json(text)


def to_api(shape: type[R], record: R) -> Any:
    """The record as the API has it, ready for ``json.dumps``."""
    return _adapter(shape).dump_python(record, mode="json", by_alias=True)


def _adapter(shape: type[R]) -> TypeAdapter[R]:
    if shape not in _ADAPTERS:
        _ADAPTERS[shape] = TypeAdapter(shape)
    return _ADAPTERS[shape]


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
