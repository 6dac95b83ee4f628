"""What the checks judge: plain records of what was found.  Nothing here looks at anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.config.settings import Settings
    from socketpool.core.ports import PortRange
    from socketpool.errors import ConfigError


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARNING = "warning"  # works, but may not always
    PROBLEM = "problem"  # something has to be done


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing, and what to do when it isn't well."""

    check: str
    level: Level
    what: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """Somebody who listens on a TCP port; pid 0 when the kernel doesn't tell us who."""

    host: str
    port: int
    pid: int = 0
    program: str = ""
    ours: bool = False
    """Whether this very pool started it."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Limits of a process, and how many descriptors it has open; None when not known."""

    process: str
    hard: int
    used: int | None = None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the state directory."""

    path: Path
    free_bytes: int
    free_inodes: int | None
    """None when the file system has no fixed number of them."""
    writable: bool


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since the epoch, and how much wall and monotonic time disagreed in a short while."""

    wall: float
    drift: float
    synchronised: bool | None
    newest_file: float = 0.0
    """When the newest file of the state directory was written, by its time stamp."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file, directory or socket: who owns it and what it allows whom."""

    path: Path
    mode: int
    owner: int


@dataclass(frozen=True, slots=True)
class SupervisordFact:
    """supervisord and the pool server under it."""

    installed: str
    pool_running: bool
    """Whether a server holds the state directory's lock."""
    answers: str = ""
    """The version that the running one tells; empty when none answers."""
    refusal: str = ""
    server_state: str = ""
    """What it says of the pool server."""


@dataclass(frozen=True, slots=True)
class ProgramFact:
    """The program of a service, and whether it can be run."""

    service: str
    program: str
    runnable: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was found."""

    source: str
    settings: Settings | None
    refusal: ConfigError | None
    user: int
    ephemeral: PortRange | None
    reserved: tuple[range, ...]
    listeners: tuple[Listener, ...]
    strays: tuple[int, ...]
    descriptors: tuple[Descriptors, ...]
    disk: Disk
    clock: Clock
    state_root: Path
    state_files: tuple[FileFact, ...]
    """The state directory first, then what is in it; empty before the first start."""
    unreadable: tuple[Path, ...]
    configuration_files: tuple[FileFact, ...]
    supervisord: SupervisordFact
    programs: tuple[ProgramFact, ...]
