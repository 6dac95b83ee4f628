"""What the two kinds of YAML file may say: the pool's file, and a service's ``service.yml``."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from socketpool.config.fields import (
    DEFAULT_URL,
    Address,
    Count,
    Duration,
    Listen,
    Ports,
    ServiceName,
    Size,
    Strict,
    check_host,
    check_url,
)
from socketpool.core.ports import PortRange

PLACEHOLDERS = ("host", "port", "workspace", "python", "folder")
"""What ``{...}`` may name in a command or an environment value."""

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


class PoolSection(Strict):
    """The ``pool:`` section."""

    listen: Listen = Address(host="127.0.0.1", port=8080)
    ports: Ports = DEFAULT_PORTS
    services_host: str = ""
    lease: LeaseSettings = LeaseSettings()

    @field_validator("services_host")
    @classmethod
    def _host(cls, value: str) -> str:
        return check_host(value) if value else value


class Readiness(Strict):
    """When an instance counts as ready: its own process listens on its port, within ``timeout``.

    With ``notify`` it must also have said ``READY=1`` (sd_notify); services of the SDK always do.
    """

    kind: Literal["listen", "notify"] = "listen"
    timeout: Duration = 20.0


class Limits(Strict):
    """Bounds on each process of a service (for SDK services: on each session)."""

    processes: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    memory: Annotated[Size, Field(ge=32 << 20)] | None = None
    cpu: Annotated[Duration, Field(ge=1)] | None = None
    file_size: Size | None = None
    open_files: Annotated[int, Field(strict=True, ge=16, le=1_000_000)] | None = None
    sessions: Annotated[int, Field(strict=True, ge=1, le=1000)] = 8
    session_time: Duration = 600.0
    archive_size: Size = 4 << 30


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
    """What the pool's file may change of a service; what it doesn't name stays as it was."""

    warm: Count | None = None
    max: Count | None = None
    readiness: Readiness | None = None
    environment: dict[_EnvName, _Text] | None = None
    limits: Limits | None = None


class ServiceFile(Strict):
    """A ``service.yml``."""

    description: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    command: _Arguments | None = None
    sdk: Sdk | None = None
    client: Literal["upload", "vendor", "download"] | None = None
    url: Annotated[str, AfterValidator(check_url)] = DEFAULT_URL
    warm: Count = 1
    max: Count = 8
    readiness: Readiness = Readiness()
    environment: dict[_EnvName, _Text] = Field(default_factory=dict)
    limits: Limits = Limits()

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
        if self.sdk is not None and self.sdk.executable is not None and self.client != "vendor":
            raise ValueError("sdk.executable: such a program is a vendor; say client: vendor")
        if self.client is not None and self.sdk is None:
            raise ValueError("client: only a service written with the SDK has a client portion")
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
