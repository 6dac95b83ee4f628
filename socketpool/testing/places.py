"""Services as a test names them, and the private state directory they run on."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.config.models import DEFAULT_PORTS, LeaseSettings
from socketpool.config.settings import Service, Settings, read_service, shipped_catalogue
from socketpool.config.statedir import StateDir
from socketpool.config.values import Address
from socketpool.credentials.tokens import ensure_secret
from socketpool.errors import ConfigError
from socketpool.supervision.files import service_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from socketpool.supervision.instancespec import InstanceSpec

HOST = "127.0.0.1"

SHIPPED_STEPS = ("upload", "download")
"""What every round trip needs besides the services under test."""


def find_services(places: Iterable[Path | str]) -> dict[str, Service]:
    """The services of these folders, each a service's or a catalogue; raises ConfigError.

    The shipped upload and download are added unless there are others of their names.
    """
    services: dict[str, Service] = {}
    for place in map(Path, places):
        alone = (place / "service.yml").exists()
        folders = [place] if alone else sorted(p.parent for p in place.glob("*/service.yml"))
        if not folders:
            raise ConfigError(
                f"{place}: neither a service nor a catalogue",
                hint="a service is a folder with a service.yml in it, a catalogue a folder of them",
            )
        for folder in folders:
            service = read_service(folder.resolve())
            if service.name in services:
                raise ConfigError(f"service {service.name!r} is given twice")
            services[service.name] = service
    return {name: shipped(name) for name in SHIPPED_STEPS} | services


def shipped(name: str) -> Service:
    """A service that comes with socketpool."""
    return read_service(shipped_catalogue() / name)


@contextmanager
def private_state() -> Iterator[StateDir]:
    """A state directory for the length of a ``with`` block."""
    with tempfile.TemporaryDirectory(prefix="socketpool-testing-") as folder:
        state = StateDir(Path(folder) / "s")
        state.prepare()
        ensure_secret(state.lease_key)
        # What a pool's processes check before they start: that their supervisor still lives.
        state.supervisord_pid.write_text(str(os.getpid()), encoding="ascii")
        yield state


def spec_of(service: Service, state: StateDir) -> InstanceSpec:
    """What the processes of the service are told, as in any pool."""
    settings = Settings(
        listen=Address(host=HOST, port=0),
        services_host=HOST,
        ports=DEFAULT_PORTS,
        lease=LeaseSettings(),
        services={},
    )
    return service_spec(settings, state, service)
