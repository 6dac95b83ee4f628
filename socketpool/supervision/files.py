"""What a pool's processes are told, as files: resolved settings, and a specification per service.

Written before the start and again by a reload.  A file is replaced whole; when one of several can't
be written, none has changed.
"""

from __future__ import annotations

import hashlib
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.errors import ConfigError
from socketpool.supervision import conf
from socketpool.supervision.instancespec import InstanceSpec, LimitSpec, SdkSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.config.settings import Service, Settings
    from socketpool.config.statedir import StateDir

HASHED_BYTES = 1 << 20
"""Larger files of a service's folder are known by their size and time."""

MAX_FILES = 2000


def spec_texts(settings: Settings, state: StateDir) -> dict[str, str]:
    """The specification of each service, by the service's name."""
    return {
        service.name: service_spec(settings, state, service).text()
        for service in settings.services.values()
    }


def write_settings(state: StateDir, settings: Settings, specs: dict[str, str]) -> None:
    """Have processes that start from now on find these; raises ConfigError, and nothing changed."""
    texts = {state.services / f"{name}.json": text for name, text in specs.items()}
    texts[state.settings] = settings.model_dump_json(by_alias=True)
    staged: list[tuple[Path, Path]] = []
    try:
        for path, text in texts.items():
            staged.append((conf.stage(path, text), path))
        for temporary, path in staged:
            temporary.replace(path)
    except OSError as error:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
        raise ConfigError(
            f"{state.root}: {error.strerror}", hint="check the disk's space and permissions"
        ) from None


def service_spec(settings: Settings, state: StateDir, service: Service) -> InstanceSpec:
    """With what the instances of a service are started."""
    command, sdk = service.command, None
    if service.sdk is not None:
        command = ("{python}", "-P", "-u", "-m", "socketpool.rsi.runner", "{spec}", "{port}")
        sdk = SdkSpec(
            **service.sdk.model_dump(mode="json"),
            lease_key=str(state.lease_key),
            workspaces=str(state.workspaces),
            fence=str(state.fence),
            alive=str(state.alive),
        )
    return InstanceSpec(
        name=service.name,
        host=settings.services_host,
        folder=service.folder,
        content=fingerprint(Path(service.folder)),
        environment=service.environment,
        limits=LimitSpec(**service.limits.model_dump()),
        scratch=str(state.scratch),
        supervisord_pid=str(state.supervisord_pid),
        notify=str(state.notify_socket) if service.notifies else "",
        own_workspace=service.sdk is None,
        values={
            "host": settings.services_host,
            "python": sys.executable,
            "folder": service.folder,
            "spec": str(state.services / f"{service.name}.json"),
        },
        argv=list(command or ()),
        probe=None if service.readiness.exec is None else list(service.readiness.exec),
        sdk=sdk,
    )


def fingerprint(folder: Path) -> str:
    """Differs when a file of the folder does, caches and hidden files excepted.

    By it a reload finds out that a service's code was changed.
    """
    digest = hashlib.sha256()
    for path in islice(_walk(folder), MAX_FILES):
        digest.update(str(path.relative_to(folder)).encode("utf-8", "surrogateescape") + b"\0")
        try:
            status = path.stat()
            if status.st_size <= HASHED_BYTES:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            else:
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
            digest.update(str(status.st_mode).encode())
        except OSError as error:  # gone meanwhile, or not ours to read
            digest.update(str(error.errno).encode())
    return digest.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file():
            yield path
