"""Models of the two kinds of YAML file: the pool's file, and a service's ``service.yml``."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from socketpool import defaults
from socketpool.config.clients import ClientName, ClientSettings
from socketpool.config.fields import Count, Duration, Listen, Ports, ServiceName, Size, Strict
from socketpool.config.values import DEFAULT_URL, Address, check_host, check_url
from socketpool.core.ports import PortRange
from socketpool.core.servicekinds import ServiceKind

PLACEHOLDERS = ("host", "port", "workspace", "python", "folder")
"""Placeholders that a command or an environment value may contain, as ``{port}``."""

DEFAULT_PORTS = PortRange(21000, 21499)

_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
_Argument = Annotated[str, StringConstraints(max_length=4096)]
_Arguments = Annotated[tuple[_Argument, ...], Field(min_length=1, max_length=256)]
_EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]


def check_placeholders(text: str, allowed_words: tuple[str, ...] = PLACEHOLDERS) -> str:
    """Raise ValueError for a ``{word}`` that is no placeholder, or a NUL byte."""
    if "\0" in text:
        raise ValueError("a NUL byte can't be passed to a program")
    for word in re.findall(r"\{([a-z_]+)\}", text):
        if word not in allowed_words:
            allowed = ", ".join(f"{{{name}}}" for name in allowed_words)
            raise ValueError(f"unknown placeholder {{{word}}}; allowed: {allowed}")
    return text


class LeaseSettings(Strict):
    """How long leases live."""

    ttl: Duration = 60.0
    max: Duration = 3600.0

    @model_validator(mode="after")
    def _ttl_within_max(self) -> Self:
        if self.ttl > self.max:
            raise ValueError(f"ttl ({self.ttl:g}s) is longer than max ({self.max:g}s)")
        return self


class InstanceSettings(Strict):
    """When the pool removes instances, and when it starts failed ones again.

    Instances that were not needed for ``shrink_after`` are removed.  For ``port_rest`` after a
    service gave up a port, no other service gets it.  A failed instance is started again after
    ``retry_first``; the delay doubles after each further failure, up to ``retry_most``.
    """

    shrink_after: Duration = defaults.SHRINK_AFTER_SECONDS
    port_rest: Duration = defaults.PORT_REST_SECONDS
    retry_first: Duration = 1.0
    retry_most: Duration = 300.0

    @model_validator(mode="after")
    def _first_within_most(self) -> Self:
        if self.retry_first > self.retry_most:
            raise ValueError(
                f"retry_first ({self.retry_first:g}s) is longer than "
                f"retry_most ({self.retry_most:g}s)"
            )
        return self


class PoolSection(Strict):
    """The ``pool:`` section."""

    listen: Listen = Address(host="127.0.0.1", port=8080)
    ports: Ports = DEFAULT_PORTS
    services_host: str = ""
    lease: LeaseSettings = LeaseSettings()
    instances: InstanceSettings = InstanceSettings()

    @field_validator("services_host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host(value) if value else value


class Readiness(Strict):
    """When an instance counts as ready, and as alive.

    Of every kind its own process must listen on its port, within ``start`` of its start.  With
    ``notify`` it must also have said ``READY=1`` (sd_notify), which services of the SDK always do;
    with ``http`` a GET of ``path`` must be answered with 2xx or 3xx; with ``exec`` the program
    ``exec`` must exit with 0.  An idle instance is asked every ``interval`` whether it still is;
    each answer may take ``timeout``.
    """

    kind: Literal["listen", "notify", "http", "exec"] = "listen"
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]*$", max_length=1024)] | None = None
    exec: _Arguments | None = None
    interval: Duration = 10.0
    timeout: Duration = 5.0
    start: Duration = defaults.START_SECONDS

    @field_validator("exec")
    @classmethod
    def _placeholders(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for argument in value or ():
            check_placeholders(argument)
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.path is not None) != (self.kind == "http"):
            raise ValueError("path: give it with kind: http, as /health, and with no other")
        if (self.exec is not None) != (self.kind == "exec"):
            raise ValueError("exec: give the program, a list, with kind: exec, and with no other")
        return self


class ServiceLimits(Strict):
    """Bounds on each process of a service (for SDK services: on each session)."""

    processes: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    memory: Annotated[Size, Field(ge=32 << 20)] | None = None
    cpu: Annotated[Duration, Field(ge=1)] | None = None
    file_size: Size | None = None
    open_files: Annotated[int, Field(strict=True, ge=16, le=1_000_000)] | None = None
    sessions: Annotated[int, Field(strict=True, ge=1, le=1000)] = 8
    session_time: Duration = defaults.SESSION_SECONDS
    archive_size: Size = defaults.ARCHIVE_BYTES


class Sdk(Strict):
    """The SDK form of a service: a Python file of its folder and a class in it, or a program.

    A program is run once a session in a directory of the uploaded members; ``added`` and
    ``deleted`` say whether members that it adds or deletes are refused or ignored.
    """

    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.py$")] | None = None
    cls: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        default=None, alias="class"
    )
    executable: _Arguments | None = None
    added: Literal["refuse", "ignore"] = "refuse"
    deleted: Literal["refuse", "ignore"] = "refuse"

    @field_validator("executable")
    @classmethod
    def _placeholders(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for argument in value or ():
            check_placeholders(argument, ("python", "folder"))
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        is_class = self.file is not None and self.cls is not None
        has_none = self.file is None and self.cls is None
        if not (is_class if self.executable is None else has_none):
            raise ValueError("give either file and class, or executable")
        return self


class ServiceOverride(Strict):
    """Settings of a service that the pool's file may change; the others keep their values."""

    warm: Count | None = None
    max: Count | None = None
    readiness: Readiness | None = None
    environment: dict[_EnvName, _Text] | None = None
    limits: ServiceLimits | None = None


class ServiceFile(Strict):
    """A ``service.yml``."""

    description: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    command: _Arguments | None = None
    sdk: Sdk | None = None
    client: ServiceKind | None = None
    url: Annotated[str, AfterValidator(check_url)] = DEFAULT_URL
    warm: Count = 1
    max: Count = 8
    readiness: Readiness = Readiness()
    environment: dict[_EnvName, _Text] = Field(default_factory=dict)
    limits: ServiceLimits = ServiceLimits()

    @field_validator("command")
    @classmethod
    def _placeholders(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for argument in value or ():
            check_placeholders(argument)
        return value

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: dict[str, str]) -> dict[str, str]:
        for text in value.values():
            check_placeholders(text)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.command is None) == (self.sdk is None):
            raise ValueError("give either command (any program) or sdk (a Python file and class)")
        is_program = self.sdk is not None and self.sdk.executable is not None
        if is_program and self.client is not ServiceKind.VENDOR:
            raise ValueError("sdk.executable: such a program is a vendor; say client: vendor")
        if self.client is not None and self.sdk is None:
            raise ValueError("client: only a service written with the SDK has a client portion")
        if self.sdk is not None and self.readiness.kind not in {"listen", "notify"}:
            raise ValueError(
                "readiness.kind: a service written with the SDK says itself when it is"
            )
        if self.warm > self.max:
            raise ValueError(f"warm ({self.warm}) is more than max ({self.max})")
        if self.max < 1:
            raise ValueError("max must be at least 1")
        return self


class PoolFile(Strict):
    """A ``pool.yml``."""

    pool: PoolSection = PoolSection()
    catalogue: tuple[_Text, ...] | None = None
    services: dict[ServiceName, ServiceOverride] = Field(default_factory=dict)
    clients: dict[ClientName, ClientSettings] = Field(default_factory=dict)
