"""The checks: each judges a part of the facts.  Pure; every check says something of what it saw."""

from __future__ import annotations

import re
import stat
import time
from typing import TYPE_CHECKING

from socketpool.config.statedir import StateDir
from socketpool.config.values import EVERYWHERE
from socketpool.doctor.facts import Facts, FileFact, Finding, Level, Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from socketpool.config.settings import Settings

KNOWN_SUPERVISORD = ((4, 2, 5), (4, 4))
"""From the first of these versions up to, and without, the second."""

DESCRIPTORS_PER_INSTANCE = 3
"""supervisord: the program's output and its log; the pool server: a pidfd."""
DESCRIPTORS_BESIDES = 512
COMFORTABLE_DESCRIPTORS = 8192
NEARLY_ALL = 0.8

LOW_BYTES, VERY_LOW_BYTES = 1 << 30, 256 << 20
LOW_INODES, VERY_LOW_INODES = 20_000, 1_000

EARLIEST = 1_735_689_600.0  # 2025, before this program was written
LATEST = 4_102_444_800.0  # 2100
MAX_DRIFT = 0.25
MOST_IN_FUTURE = 60.0

OTHERS = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_SHOWN = 5


def examine(facts: Facts) -> list[Finding]:
    """All findings, in the order of the checks."""
    return [finding for check in CHECKS for finding in check(facts)]


def check_catalogue(facts: Facts) -> Iterator[Finding]:
    """The configuration and every service.yml can be used."""
    if facts.refusal is not None:
        hint = facts.refusal.hint or "correct it; docs/services.md tells the keys"
        yield Finding("catalogue", Level.PROBLEM, facts.refusal.message, hint)
    elif facts.settings is not None:
        names = ", ".join(sorted(facts.settings.services))
        yield Finding("catalogue", Level.OK, f"{facts.source} is valid; services: {names}")


def check_programs(facts: Facts) -> Iterator[Finding]:
    """What the services run is there."""
    missing = [program for program in facts.programs if not program.runnable]
    for program in missing:
        yield Finding(
            "programs",
            Level.PROBLEM if _keeps_warm(facts.settings, program.service) else Level.WARNING,
            f"{program.service}: {program.program!r} is not there or can't be run",
            "install it, or correct command in the service.yml; leave the service out if unused",
        )
    if facts.programs and not missing:
        yield Finding("programs", Level.OK, f"those of {_services(len(facts.programs))} are there")


def check_ephemeral_ports(facts: Facts) -> Iterator[Finding]:
    """Outgoing connections take no ports of the pool's."""
    if facts.ephemeral is None:
        yield Finding("ports", Level.WARNING, "the kernel doesn't tell its ephemeral range", "")
    elif facts.settings is not None:  # a range that overlaps was refused with the configuration
        yield Finding(
            "ports",
            Level.OK,
            f"{facts.settings.ports} is clear of {facts.ephemeral}, the kernel's for outgoing "
            "connections",
        )


def check_reserved_ports(facts: Facts) -> Iterator[Finding]:
    """Nobody has put a part of the range aside for something else."""
    if facts.settings is None:
        return
    ports = facts.settings.ports
    reserved = [p for p in ports if any(p in r for r in facts.reserved)]
    if reserved and len(reserved) < len(ports):
        yield Finding(
            "ports",
            Level.WARNING,
            f"{_some(reserved)} of {ports} reserved in net.ipv4.ip_local_reserved_ports",
            "if that is for another program choose another range, otherwise reserve all of it",
        )


def check_busy_ports(facts: Facts) -> Iterator[Finding]:
    """Nobody else listens on the pool's ports."""
    if facts.settings is None:
        return
    settings = facts.settings
    others = [
        x
        for x in facts.listeners
        if not x.ours
        and (
            (x.port in settings.ports and _collide(x.host, settings.services_host))
            or (x.port == settings.listen.port and _collide(x.host, settings.listen.host))
        )
    ]
    for listener in others[:_SHOWN]:
        is_server = listener.port == settings.listen.port
        yield Finding(
            "ports",
            Level.PROBLEM if is_server else Level.WARNING,
            f"port {listener.port} is held by {_who(listener)}"
            + (", and the pool server is to listen there" if is_server else ""),
            "stop that program, or choose another port for the server (pool.listen)"
            if is_server
            else "the pool avoids it; stop that program or choose another range to have it back",
        )
    if len(others) > _SHOWN:
        rest = _some([x.port for x in others[_SHOWN:]])
        yield Finding("ports", Level.WARNING, f"held by others too: {rest}", "as above")
    free = len(settings.ports) - sum(x.port in settings.ports for x in others)
    max_instances = sum(service.max for service in settings.services.values())
    warm = sum(service.warm for service in settings.services.values())
    if free < max_instances:
        yield Finding(
            "ports",
            Level.PROBLEM if free < warm else Level.WARNING,
            f"{settings.ports} has {free} ports to give, but {warm} instances are to be kept warm "
            f"and up to {max_instances} may be wanted",
            "widen pool.ports, or lower warm and max",
        )
    elif not others:
        yield Finding("ports", Level.OK, f"nobody else listens on {settings.ports}")


def check_strays(facts: Facts) -> Iterator[Finding]:
    """Nothing of a pool that was killed is left."""
    if facts.strays:
        yield Finding(
            "processes",
            Level.WARNING,
            f"left by a pool that was killed: {_some(list(facts.strays))}",
            "the next start ends them; or end them yourself",
        )


def check_descriptors(facts: Facts) -> Iterator[Finding]:
    """Files and connections may be opened in sufficient number."""
    max_instances = sum(s.max for s in facts.settings.services.values()) if facts.settings else 0
    needed = DESCRIPTORS_BESIDES + DESCRIPTORS_PER_INSTANCE * max_instances
    hint = "raise it: ulimit -Hn in a shell, LimitNOFILE= in a systemd unit"
    for found in facts.descriptors:
        if found.used is not None and found.used > NEARLY_ALL * found.hard:
            yield Finding(
                "descriptors",
                Level.PROBLEM,
                f"{found.process} has {found.used} of {found.hard} descriptors open",
                "raise the limit, or find out who keeps so many connections open",
            )
        elif found.hard < needed:
            what = (
                f"{found.process} may open {found.hard}; "
                f"{max_instances} instances need about {needed}"
            )
            yield Finding("descriptors", Level.PROBLEM, what, hint)
        elif found.hard < COMFORTABLE_DESCRIPTORS:
            what = f"{found.process} may open {found.hard}, which bounds the clients' connections"
            yield Finding("descriptors", Level.WARNING, what, hint)
        else:
            used = "" if found.used is None else f", and has {found.used} open"
            what = f"{found.process} may open {found.hard}{used}"
            yield Finding("descriptors", Level.OK, what)


def check_disk(facts: Facts) -> Iterator[Finding]:
    """The state directory can be written to, and there is room."""
    disk = facts.disk
    if not disk.writable:
        yield Finding(
            "disk",
            Level.PROBLEM,
            f"{disk.path} can't be written to",
            "mount it writable, check its permissions, or name another with --state-dir",
        )
        return
    room = f"{disk.free_bytes / (1 << 30):.1f} GiB free at {disk.path}"
    inodes = disk.free_inodes
    very_low = disk.free_bytes < VERY_LOW_BYTES or (inodes or LOW_INODES) < VERY_LOW_INODES
    low = disk.free_bytes < LOW_BYTES or (inodes or LOW_INODES) < LOW_INODES
    if inodes is not None:
        room += f", {inodes} inodes"
    if inodes == 0 or very_low:
        yield Finding("disk", Level.PROBLEM, room, "make room: leases are refused on a full disk")
    elif low:
        yield Finding("disk", Level.WARNING, room, "make room for what clients upload")
    else:
        yield Finding("disk", Level.OK, room)


def check_clock(facts: Facts) -> Iterator[Finding]:
    """The time is plausible and runs evenly; leases that outlive a restart are dated by it."""
    clock = facts.clock
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(clock.wall))
    bad = False
    if not EARLIEST < clock.wall < LATEST:
        bad = True
        yield Finding("clock", Level.PROBLEM, f"it can't be {shown}", "set the clock")
    elif clock.newest_file > clock.wall + MOST_IN_FUTURE:
        bad = True
        ahead = clock.newest_file - clock.wall
        yield Finding(
            "clock",
            Level.WARNING,
            f"the state directory has files that are {ahead:.0f} s from the future",
            "was the clock set back? see that it is right now",
        )
    if abs(clock.drift) > MAX_DRIFT:
        bad = True
        yield Finding(
            "clock",
            Level.WARNING,
            f"it was moved by {clock.drift:+.2f} s while we looked",
            "if that goes on, find out who sets the clock",
        )
    if clock.synchronised is False:
        bad = True
        yield Finding(
            "clock",
            Level.WARNING,
            f"{shown}, not synchronised with others",
            "run chrony or systemd-timesyncd, here or on the machine that hosts this one",
        )
    if not bad:
        unknown = "" if clock.synchronised else "; whether it is synchronised is not known"
        yield Finding("clock", Level.OK, f"{shown}{unknown}")


def check_supervisord(facts: Facts) -> Iterator[Finding]:
    """A supervisord that we know runs, or can."""
    found = facts.supervisord
    lowest, above = KNOWN_SUPERVISORD
    known = f"{_dotted(lowest)} or newer, below {_dotted(above)}"
    version = found.answers or found.installed
    if not version:
        yield Finding(
            "supervisord", Level.PROBLEM, "it is not installed", "pip install socketpool again"
        )
    elif not lowest <= _version(version) < above:
        hint = f"install {known}: pip install 'supervisor>={_dotted(lowest)},<{_dotted(above)}'"
        yield Finding("supervisord", Level.WARNING, f"{version} was never tried with this", hint)
    elif found.answers:
        yield Finding("supervisord", Level.OK, f"{version} is running")
    else:
        yield Finding("supervisord", Level.OK, f"{version} is installed")
    if found.pool_running and not found.answers:
        yield Finding(
            "supervisord",
            Level.PROBLEM,
            f"the pool is running, but its supervisord does not answer: {found.refusal}",
            f"look into {StateDir(facts.state_root).supervisord_log}, or restart the pool",
        )
    elif found.answers and found.server_state not in {"STARTING", "RUNNING"}:
        yield Finding(
            "supervisord",
            Level.PROBLEM,
            f"the pool server is {found.server_state or 'unknown to it'}",
            f"look into {facts.state_root / 'logs' / 'pool-server.log'}",
        )
    elif not found.pool_running:
        yield Finding("pool", Level.OK, f"none is running on {facts.state_root}")


def check_account(facts: Facts) -> Iterator[Finding]:
    """It runs as somebody who may not do everything."""
    if facts.user == 0:
        yield Finding(
            "account",
            Level.WARNING,
            "as root every service has all rights",
            "run the pool as an account of its own",
        )


def check_state_files(facts: Facts) -> Iterator[Finding]:
    """What we keep belongs to one account, and only that may look at it."""
    for path in facts.unreadable[:_SHOWN]:
        yield Finding(
            "files", Level.PROBLEM, f"{path} can't be looked at", "run this as the pool's account"
        )
    if not facts.state_files:
        if not facts.unreadable:
            yield Finding("files", Level.OK, f"{facts.state_root} is made at the first start")
        return
    root, *inside = facts.state_files
    bad = bool(facts.unreadable)
    if root.owner != facts.user:
        bad = True
        yield Finding(
            "files",
            Level.WARNING,
            f"{root.path} belongs to user {root.owner}; you are {facts.user}",
            "only its owner can start the pool; run this as that account",
        )
    secrets = {StateDir(root.path).token, StateDir(root.path).lease_key}
    foreign = [file for file in inside if file.owner != root.owner]
    if foreign:
        bad = True
        yield Finding(
            "files",
            Level.PROBLEM,
            f"of another owner than {root.path}: {_paths(foreign)}",
            f"chown them to user {root.owner}",
        )
    for file in facts.state_files:
        shown = f"{file.path} has mode {stat.S_IMODE(file.mode):04o}"
        if file.mode & OTHERS and (file is root or file.path in secrets):
            bad = True
            yield Finding(
                "files",
                Level.PROBLEM,
                f"{shown}: others may use it",
                f"chmod go= {file.path}; if they could read a secret, delete token and lease.key "
                "and restart the pool",
            )
    loose = [x for x in inside if x.mode & OTHERS and x.path not in secrets]
    if loose:
        bad = True
        yield Finding(
            "files",
            Level.WARNING,
            f"open to others, were it not for their folder: {_paths(loose)}",
            f"chmod -R go= {root.path}",
        )
    if not bad:
        yield Finding("files", Level.OK, f"{root.path} and {len(inside)} files in it are private")


def check_configuration_files(facts: Facts) -> Iterator[Finding]:
    """Nobody else can change what the pool runs."""
    trusted = {0, facts.user, *(file.owner for file in facts.state_files[:1])}
    loose = [
        file
        for file in facts.configuration_files
        if file.owner not in trusted or (file.mode & OTHERS_WRITE and not stat.S_ISLNK(file.mode))
    ]
    if loose:
        yield Finding(
            "files",
            Level.WARNING,
            f"others may change what the pool runs: {_paths(loose)}",
            "chmod go-w them, and have them belong to root or to the pool's account",
        )


CHECKS: Sequence[Callable[[Facts], Iterator[Finding]]] = (
    check_catalogue,
    check_programs,
    check_configuration_files,
    check_ephemeral_ports,
    check_reserved_ports,
    check_busy_ports,
    check_strays,
    check_descriptors,
    check_disk,
    check_clock,
    check_supervisord,
    check_account,
    check_state_files,
)


def _collide(one: str, other: str) -> bool:
    return one == other or one in EVERYWHERE or other in EVERYWHERE


def _who(listener: Listener) -> str:
    if not listener.pid:
        return f"a program of another user (at {listener.host})"
    return f"{listener.program} (pid {listener.pid}, at {listener.host})"


def _keeps_warm(settings: Settings | None, service: str) -> bool:
    return settings is None or settings.services[service].warm > 0


def _services(count: int) -> str:
    return "the one service" if count == 1 else f"all {count} services"


def _some(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def _paths(files: Sequence[FileFact]) -> str:
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(str(file.path) for file in files[:_SHOWN]) + more


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", text)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
