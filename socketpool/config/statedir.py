"""The state directory: every file that a pool keeps, in one private place.

Standard library only, so that the processes of services may import it cheaply.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from socketpool import variables
from socketpool.errors import ConfigError

MARK = "A state directory of socketpool; everything in it is private to one pool.\n"

SETTINGS, TOKEN = "pool.json", "token"  # their names, also on other machines

_UNSAFE = frozenset("%;#[]*?\"'\\")
_SOCKET_PATH_BYTES = 107  # sun_path, less its terminator
_SUFFIX_BYTES = len(".1234567")  # supervisord binds <socket>.<pid> first, then links it


@dataclass(frozen=True, slots=True)
class StateDir:
    """Where a pool keeps its files.  Nothing here creates or changes any, but `prepare`."""

    root: Path

    @classmethod
    def locate(cls, given: str | None = None) -> StateDir:
        """The directory given, else that of `variables.STATE_DIR`, else in the XDG state home.

        Raises :class:`ConfigError` for a path that supervisord's configuration can't express.
        """
        name = given or os.environ.get(variables.STATE_DIR)
        state = cls(_expanded(name).absolute() if name else default_root())
        state.check()
        return state

    def check(self) -> None:
        """Raise :class:`ConfigError` unless supervisord can work with the path."""
        text = str(self.root)
        if any(c in _UNSAFE or not c.isprintable() for c in text):
            raise ConfigError(
                f"state directory {text!r}: none of %;#[]*?\"'\\ nor control characters may be in "
                "its path",
                hint="choose another with --state-dir",
            )
        if len(os.fsencode(self.supervisor_socket)) + _SUFFIX_BYTES > _SOCKET_PATH_BYTES:
            raise ConfigError(
                f"state directory {text}: the path is too long for the socket in it",
                hint="choose a shorter one with --state-dir",
            )

    def prepare(self) -> None:
        """Create the directories, private to this user; raises :class:`ConfigError`."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.root.stat().st_uid != os.geteuid():
                raise ConfigError(f"state directory {self.root} belongs to another user")
            if not self.marker.exists():
                if {path.name for path in self.root.iterdir()} - {"lost+found"}:
                    raise ConfigError(
                        f"state directory {self.root} holds files that are not a pool's",
                        hint="name an empty or a new one with --state-dir",
                    )
                self.marker.write_text(MARK, encoding="ascii")
            self.root.chmod(0o700)
            for folder in (self.programs, self.services, self.logs, self.workspaces, self.trash):
                folder.mkdir(mode=0o700, exist_ok=True)
            for folder in (self.scratch, self.alive):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"state directory {self.root}: {error.strerror}",
                hint="choose another with --state-dir",
            ) from None

    @property
    def marker(self) -> Path:
        """Marks the directory as a pool's: socketpool may replace the files in it."""
        return self.root / "STATE-OF-SOCKETPOOL"

    @property
    def lock(self) -> Path:
        """Locked by the one server that runs on this directory."""
        return self.root / "lock"

    @property
    def settings(self) -> Path:
        """The resolved settings, as the pool server reads them."""
        return self.root / SETTINGS

    @property
    def token(self) -> Path:
        """The API token."""
        return self.root / TOKEN

    @property
    def lease_key(self) -> Path:
        """The key that signs lease tokens."""
        return self.root / "lease.key"

    @property
    def fence(self) -> Path:
        """Which generation holds each port."""
        return self.root / "fence"

    @property
    def store(self) -> Path:
        """The leases, in SQLite."""
        return self.root / "leases.sqlite"

    @property
    def supervisord_conf(self) -> Path:
        """supervisord's configuration; ``supervisorctl -c`` takes it."""
        return self.root / "supervisord.conf"

    @property
    def supervisord_pid(self) -> Path:
        """supervisord's process id, written by itself."""
        return self.root / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        """supervisord's RPC socket."""
        return self.root / "supervisor.sock"

    @property
    def notify_socket(self) -> Path:
        """The socket to which instances send ``READY=1``."""
        return self.root / "notify.sock"

    @property
    def alive(self) -> Path:
        """One socket per instance of an SDK service, on which it answers that it still works."""
        return self.root / "alive"

    @property
    def drained(self) -> Path:
        """The services that were drained, which a restart of the pool server must not undo."""
        return self.root / "drained.json"

    @property
    def programs(self) -> Path:
        """One file per block of instances, included by supervisord."""
        return self.root / "conf.d"

    @property
    def services(self) -> Path:
        """One JSON file per service: the specification with which its processes are started."""
        return self.root / "services"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.root / "logs"

    @property
    def supervisord_log(self) -> Path:
        """supervisord's own log."""
        return self.logs / "supervisord.log"

    def instance_log(self, service: str, port: int | str) -> Path:
        """The log of the processes of one instance."""
        return self.logs / f"{service}-{port}.log"

    @property
    def workspaces(self) -> Path:
        """One directory per lease."""
        return self.root / "workspaces"

    @property
    def scratch(self) -> Path:
        """One directory per instance of a plain program, empty at each of its starts."""
        return self.root / "scratch"

    @property
    def trash(self) -> Path:
        """Workspaces of ended leases that are being deleted."""
        return self.root / "trash"


def default_root() -> Path:
    """The default state directory; raises :class:`ConfigError` when there is no home."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else _home() / ".local" / "state"
    return base / "socketpool"


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"state directory {name}: no such home", hint="choose another with --state-dir"
        ) from None


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "no home directory to keep state in", hint="name one with --state-dir"
        ) from None
