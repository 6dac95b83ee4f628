"""Finds out what the checks judge.  Looks only: starts, changes and deletes nothing."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import sys
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from socketpool.client.apitoken import is_running
from socketpool.config.models import DEFAULT_PORTS
from socketpool.config.settings import Service, Settings, load_settings, read_service
from socketpool.doctor.facts import (
    Clock,
    Descriptors,
    Disk,
    Facts,
    FileFact,
    Listener,
    ProgramFact,
    SupervisordFact,
)
from socketpool.errors import ConfigError, SocketpoolError
from socketpool.supervision import conf
from socketpool.supervision.instancespec import fill
from socketpool.supervision.rpc import Supervisor
from socketpool.system.hostfacts import ephemeral_ports, resolve
from socketpool.system.listeners import owners, program
from socketpool.system.processes import strays
from socketpool.system.sockettable import listening_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.config.statedir import StateDir

RESERVED = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # more than struct timex has
_CLOCK_SECONDS = 0.2
_MOST_FILES = 10_000


def gather(target: str | None, state: StateDir) -> Facts:
    """Everything about the pool that ``target`` describes and that keeps its files in ``state``.

    ``target`` is a pool.yml or a range of ports; without one it is what the pool of the state
    directory was last started with, or the default when none ever was.
    """
    started_before = target is None and os.path.lexists(state.settings)
    source = str(state.settings) if started_before else target or str(DEFAULT_PORTS)
    settings, refusal = _configuration(source, state if started_before else None)
    members = {process.pid for process in strays(state.supervisor_socket)}
    running = is_running(state)
    supervisord = _supervisord(state, running=running)
    files, unreadable = _files(state)
    return Facts(
        source=source,
        settings=settings,
        refusal=refusal,
        user=os.geteuid(),
        ephemeral=ephemeral_ports(),
        reserved=_reserved_ports(),
        listeners=tuple(_listeners(members)),
        strays=() if running else tuple(sorted(members)),
        descriptors=tuple(_descriptors(state)) if running else (_own_descriptors(),),
        disk=_disk(state.root),
        clock=_clock(files),
        state_root=state.root,
        state_files=files,
        unreadable=unreadable,
        configuration_files=tuple(_configuration_files(source, settings)),
        supervisord=supervisord,
        programs=tuple(map(_program, settings.services.values())) if settings else (),
    )


def _configuration(
    source: str, started: StateDir | None
) -> tuple[Settings | None, ConfigError | None]:
    """The settings with numeric addresses, or why there are none."""
    try:
        if started is None:
            settings = load_settings(source, ephemeral=ephemeral_ports())
        else:
            settings = _last_settings(started)
        listen = replace(settings.listen, host=resolve(settings.listen.host))
        services_host = resolve(settings.services_host)
    except ConfigError as error:
        return None, error
    return settings.model_copy(update={"listen": listen, "services_host": services_host}), None


def _last_settings(state: StateDir) -> Settings:
    try:
        settings = Settings.model_validate_json(state.settings.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{state.settings}: {error.strerror}", hint="run this as the pool's account"
        ) from None
    except ValueError:
        raise ConfigError(
            f"{state.settings} is not what socketpool writes there",
            hint="name the pool.yml; the next start writes the file anew",
        ) from None
    for service in settings.services.values():
        read_service(Path(service.folder))  # it may have been changed since
    return settings


def _reserved_ports() -> tuple[range, ...]:
    try:
        text = RESERVED.read_text(encoding="ascii")
    except OSError:
        return ()
    runs = re.findall(r"([0-9]+)(?:-([0-9]+))?", text)
    return tuple(range(int(first), int(last or first) + 1) for first, last in runs)


def _listeners(members: set[int]) -> Iterator[Listener]:
    rows = list(listening_sockets())
    pids = owners(row.inode for row in rows)
    for row in rows:
        pid = pids.get(row.inode, 0)
        yield Listener(row.host, row.port, pid, program(pid) if pid else "", ours=pid in members)


def _own_descriptors() -> Descriptors:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Descriptors("a pool started from here", _finite(hard))


def _descriptors(state: StateDir) -> Iterator[Descriptors]:
    """Of a running pool: its own processes count, not what our shell may do."""
    names = {"supervisord": "supervisor.supervisord", "the pool server": "socketpool.server"}
    for process in _family(state):
        try:
            words = process.cmdline()
            name = next((n for n, module in names.items() if module in words), None)
            if name is not None:
                _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
                yield Descriptors(name, _finite(hard), process.num_fds())
        except psutil.Error:
            continue


def _family(state: StateDir) -> list[psutil.Process]:
    try:
        supervisord = psutil.Process(int(state.supervisord_pid.read_text(encoding="ascii")))
        return [supervisord, *supervisord.children()]
    except (OSError, ValueError, psutil.Error):
        return []


def _finite(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _disk(path: Path) -> Disk:
    while not path.exists() and path != path.parent:
        path = path.parent
    found = os.statvfs(path)
    return Disk(
        path,
        free_bytes=found.f_bavail * found.f_frsize,
        free_inodes=found.f_favail if found.f_files else None,
        writable=os.access(path, os.W_OK | os.X_OK),
    )


def _clock(files: tuple[FileFact, ...]) -> Clock:
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(_CLOCK_SECONDS)
    drift = (time.time() - wall) - (time.monotonic() - monotonic)
    return Clock(
        time.time(), drift, _is_synchronised(), max((_written(f) for f in files), default=0)
    )


def _written(file: FileFact) -> float:
    try:
        return file.path.lstat().st_mtime
    except OSError:
        return 0.0


def _is_synchronised() -> bool | None:
    """What the kernel was told by whoever keeps its clock; None when it doesn't say."""
    if sys.platform != "linux":
        return None
    said = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if said < 0 else said != TIME_ERROR


def _files(state: StateDir) -> tuple[tuple[FileFact, ...], tuple[Path, ...]]:
    """What is in the state directory, clients' files and programs' scratch excepted."""
    found: list[FileFact] = []
    unreadable: list[Path] = []
    pending = [state.root]
    folders = {state.root, state.programs, state.services, state.logs}
    while pending and len(found) < _MOST_FILES:
        path = pending.pop(0)
        try:
            facts = path.stat() if path == state.root else path.lstat()
            found.append(FileFact(path, facts.st_mode, facts.st_uid))
            if path in folders:
                pending += sorted(path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue  # a log that was rotated meanwhile, or no state directory yet
        except OSError:
            unreadable.append(path)
    return tuple(found), tuple(unreadable)


def _configuration_files(target: str, settings: Settings | None) -> Iterator[FileFact]:
    folders = [Path(s.folder) for s in settings.services.values()] if settings else []
    for path in (Path(target), *folders, *(p for f in folders for p in sorted(f.iterdir()))):
        try:
            facts = path.stat()
        except OSError:
            continue  # a range of ports is no file
        yield FileFact(path, facts.st_mode, facts.st_uid)


def _supervisord(state: StateDir, *, running: bool) -> SupervisordFact:
    try:
        installed = version("supervisor")
    except PackageNotFoundError:
        installed = ""
    supervisor = Supervisor(state.supervisor_socket)
    try:
        answers = supervisor.version()
        processes = supervisor.processes()
    except SocketpoolError as error:
        return SupervisordFact(installed, running, refusal=error.message)
    server = next((p.state for p in processes if p.name == conf.POOL_SERVER), "")
    return SupervisordFact(installed, running, answers, server_state=server)


def _program(service: Service) -> ProgramFact:
    """What its instances run first; what that runs in turn is its own business."""
    values = {"python": sys.executable, "folder": service.folder}
    argv = service.command or (service.sdk.executable if service.sdk else None) or ("{python}",)
    program = fill(argv[0], values)
    return ProgramFact(service.name, program, runnable=shutil.which(program) is not None)
