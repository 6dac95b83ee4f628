"""The resolved settings of a pool: the pool's file, its catalogue and its overrides in one record.

`load_settings` is the only way in.  What it returns is complete and valid: whoever holds a
:class:`Settings` need not look at a file again.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from socketpool.config.clients import ClientSettings
from socketpool.config.fields import Listen, Ports, Strict
from socketpool.config.models import (
    InstanceSettings,
    LeaseSettings,
    PoolFile,
    PoolSection,
    ServiceFile,
    ServiceOverride,
)
from socketpool.config.values import Address, check_service_name
from socketpool.config.yamlfile import load
from socketpool.core.ports import PortRange
from socketpool.core.records import ServicePlan
from socketpool.errors import ConfigError

SHIPPED = "shipped"
"""The catalogue entry that stands for the services that come with socketpool."""

EXTRA = "extra"
"""The catalogue entry for those that come with it too, but need programs that may be missing."""


class Service(ServiceFile):
    """A service of the catalogue with its overrides applied."""

    name: str
    folder: str

    @property
    def notifies(self) -> bool:
        """Whether its instances send ``READY=1`` when they are ready."""
        return self.sdk is not None or self.readiness.kind == "notify"

    def plan(self) -> ServicePlan:
        """The part of the settings that the allocation needs."""
        return ServicePlan(
            name=self.name,
            warm=self.warm,
            max_instances=self.max,
            restart=self.sdk is None,
            start_limit=self.readiness.start,
            notifies=self.notifies,
        )


class SettingsSource(Strict):
    """Where settings come from: a pool's file (or range), and an address that wins over it.

    A file's path is absolute, so that any process of the pool can read it again.
    """

    target: str
    listen: Listen | None = None


class Settings(Strict):
    """The complete configuration of a pool."""

    source: SettingsSource | None = None
    listen: Listen
    services_host: str
    ports: Ports
    lease: LeaseSettings
    instances: InstanceSettings = InstanceSettings()
    services: dict[str, Service]
    clients: dict[str, ClientSettings] = Field(default_factory=dict)


def shipped_catalogue() -> Path:
    """The folder of the services that come with the package."""
    return Path(__file__).resolve().parent.parent / "catalogue"


def extra_catalogue() -> Path:
    """The folder of services for programs that are not ours, such as databases."""
    return shipped_catalogue() / "extra"


_KEYWORDS = {SHIPPED: shipped_catalogue, EXTRA: extra_catalogue}


def load_settings(
    target: str, *, listen: Address | None = None, ephemeral: PortRange | None
) -> Settings:
    """Resolve ``pool.yml`` or ``first-last``; raises :class:`ConfigError`.

    ``listen`` is what the command line says, if it does, and wins over the file; ``ephemeral`` is
    the kernel's range for outgoing connections, which a pool must stay clear of (None when the
    kernel has none to tell).
    """
    path = Path(target)
    is_range = target[:1].isdigit() and not _exists(path)
    if is_range:
        try:
            file = PoolFile(pool=PoolSection(ports=PortRange.parse(target)))
        except (ValidationError, ValueError) as error:
            raise ConfigError(
                _first_line(error), hint="give a pool.yml or a range such as 21000-21499"
            ) from None
    else:
        file = load(path, PoolFile)
    given = SettingsSource(target=target if is_range else str(path.absolute()), listen=listen)
    source = "the command line" if is_range else str(path)
    services = _apply_overrides(source, file, _read_catalogue(source, path.parent, file))
    listen = listen or file.pool.listen
    settings = Settings(
        source=given,
        listen=listen,
        services_host=file.pool.services_host or listen.host,
        ports=file.pool.ports,
        lease=file.pool.lease,
        instances=file.pool.instances,
        services=services,
        clients=file.clients,
    )
    _check_clients(source, settings)
    _check_ports(source, settings, ephemeral)
    return settings


def read_service(folder: Path) -> Service:
    """The service of one folder; raises :class:`ConfigError`."""
    path = folder / "service.yml"
    try:
        name = check_service_name(folder.name)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}", hint="rename the folder") from None
    file = load(path, ServiceFile)
    service = Service.model_construct(**dict(file), name=name, folder=str(folder.resolve()))
    if file.sdk is not None and file.sdk.file is not None and file.sdk.cls is not None:
        _check_class(folder / file.sdk.file, file.sdk.cls)
    return service


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def _read_catalogue(source: str, base: Path, file: PoolFile) -> dict[str, Service]:
    services: dict[str, Service] = {}
    for entry in file.catalogue if file.catalogue is not None else (SHIPPED,):
        root = _KEYWORDS[entry]() if entry in _KEYWORDS else base / entry
        if not root.is_dir():
            raise ConfigError(
                f"{source}: catalogue: {root} is not a folder",
                hint=f"name folders of services, relative to the pool's file, "
                f"{SHIPPED!r} or {EXTRA!r}",
            )
        for folder in sorted(p.parent for p in root.glob("*/service.yml")):
            service = read_service(folder)
            if service.name in services:
                raise ConfigError(
                    f"{source}: catalogue: service {service.name!r} is defined twice: in "
                    f"{services[service.name].folder} and in {folder}",
                    hint="rename one of the folders",
                )
            services[service.name] = service
    if not services:
        raise ConfigError(
            f"{source}: catalogue: it holds no service",
            hint="a service is a folder with a service.yml in it",
        )
    return services


def _check_class(path: Path, cls: str) -> None:
    """Report a syntax error in a service's file now rather than in a log; the file is not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not Python source"
        raise ConfigError(f"{path}: {reason}", hint="sdk.file names a file of the folder") from None
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if cls not in names:
        found = ", ".join(names) or "none"
        raise ConfigError(f"{path}: no class {cls}; found: {found}", hint="correct sdk.class")


def _apply_overrides(
    source: str, file: PoolFile, services: dict[str, Service]
) -> dict[str, Service]:
    result = dict(services)
    for name, override in file.services.items():
        if name not in services:
            raise ConfigError(
                f"{source}: services.{name}: no such service; the catalogue has: "
                + ", ".join(sorted(services))
            )
        try:
            result[name] = Service.model_validate(_merged(services[name], override))
        except ValidationError as error:
            raise ConfigError(f"{source}: services.{name}: {_first_line(error)}") from None
    return result


def _merged(service: Service, override: ServiceOverride) -> dict[str, Any]:
    merged = service.model_dump(by_alias=True)
    for key, value in override.model_dump(exclude_unset=True).items():
        if isinstance(value, dict):
            merged[key] |= value
        elif value is not None:
            merged[key] = value
    return merged


def _check_clients(source: str, settings: Settings) -> None:
    by_token: dict[str, str] = {}
    for name, client in settings.clients.items():
        other = by_token.setdefault(client.token, name)
        if other != name:
            raise ConfigError(
                f"{source}: clients.{name}: its token is also that of {other!r}",
                hint=f"make another: socketpool token new {name}",
            )
        for service in client.services or ():
            if service not in settings.services:
                raise ConfigError(
                    f"{source}: clients.{name}.services: no such service: {service!r}; the "
                    "catalogue has: " + ", ".join(sorted(settings.services))
                )


def _check_ports(source: str, settings: Settings, ephemeral: PortRange | None) -> None:
    ports = settings.ports
    if ephemeral is not None and ports.overlaps(ephemeral):
        raise ConfigError(
            f"{source}: pool.ports: {ports} overlaps {ephemeral}, from which the kernel takes "
            "ports for outgoing connections; any of them could be gone when a service needs it",
            hint=f"choose a range below {ephemeral.first}, such as 21000-21499",
        )
    if settings.listen.port in ports:
        raise ConfigError(
            f"{source}: the pool server's own port {settings.listen.port} lies within "
            f"pool.ports ({ports})",
            hint="choose another port for the server, or another range",
        )
    warm = sum(service.warm for service in settings.services.values())
    if warm > len(ports):
        raise ConfigError(
            f"{source}: pool.ports: {ports} has {len(ports)} ports, but {warm} instances "
            "are to be kept warm",
            hint="widen the range or lower warm",
        )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        message = detail["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    return str(error)
