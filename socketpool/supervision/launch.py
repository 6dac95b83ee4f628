"""What supervisord runs for every instance: prepare the process, then become the program.

Runs as a script under ``python -I -S`` with little of the standard library alone, so that it costs
a few milliseconds: every instance's restart waits for it. ``launch.py <service.json> <port>``;
with the pool server's process id as a third argument it becomes the program by which the service
is probed instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import sys

TYPE_CHECKING = False  # as typing's own, which takes as long to import as all the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # dataclasses takes twice as long to import as all the rest
        """Leave the class as it is; `Record` does the work."""
        return lambda cls: cls


PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38

INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})
INHERITED_PREFIXES = ("LC_", "SUPERVISOR_")

FIRST_DESCRIPTOR = 3
"""Those below are standard input, output and error."""

LIMITS = {
    "memory": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "file_size": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}

SPEC_VERSION = 1
"""Of `InstanceSpec`: raised when a field is added, removed or changes its meaning."""


class SpecRefused(ValueError):
    """A file is no specification, or not one of this version."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Typed fields, given by name; those without a default are required, others are unknown."""

    def __init__(self, **fields: Any) -> None:
        names = type(self).__annotations__
        unknown = fields.keys() - names.keys()
        missing = {name for name in names if name not in fields and not hasattr(type(self), name)}
        if unknown or missing:
            raise SpecRefused(f"unknown or missing: {', '.join(sorted(unknown | missing))}")
        for name in names:
            self.__dict__[name] = fields[name] if name in fields else getattr(type(self), name)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return id(self)

    def replaced(self, **fields: Any) -> Self:
        """The same with other values of some fields."""
        return type(self)(**(vars(self) | fields))


class LimitSpec(Record):
    """Bounds on each process of a plain service, or on each session of an SDK service.

    Sizes are in bytes and times in seconds; None is without a bound.
    """

    sessions: int
    session_time: float
    archive_size: int
    processes: int | None = None
    memory: int | None = None
    cpu: float | None = None
    file_size: int | None = None
    open_files: int | None = None


class SdkSpec(Record):
    """What the runner of an SDK service needs: its class or program, and the pool's secrets."""

    file: str | None = None
    cls: str | None = None
    executable: list[str] | None = None
    added: str = "refuse"
    deleted: str = "refuse"
    lease_key: str
    """Path of the key with which lease tokens are signed, as the others are paths."""
    workspaces: str
    fence: str
    alive: str


class FileSpec(Record):
    """The user's file on which a development server works, and where its result goes."""

    client: str
    """The kind of the service."""
    file: str
    result: str
    replace: bool


class InstanceSpec(Record):
    """With what the instances of a service are started: written when the pool starts or reloads,
    and read by `main` and the runner at each start of an instance."""

    name: str
    host: str
    folder: str
    content: str
    """Fingerprint of the folder, so that a reload finds changed code."""
    environment: dict[str, str]
    limits: LimitSpec
    scratch: str
    """Folder of the working directories of plain programs."""
    supervisord_pid: str
    notify: str
    """Path of the socket for READY messages; empty when nobody waits for them."""
    own_workspace: bool
    """Whether each instance has a working directory of its own, which plain programs have."""
    values: dict[str, str]
    """What stands for the placeholders in ``argv``, ``probe`` and ``environment``."""
    argv: list[str]
    probe: list[str] | None = None
    sdk: SdkSpec | None = None
    on_file: FileSpec | None = None

    def require_sdk(self) -> SdkSpec:
        """What the runner needs; raises :class:`SpecRefused` for a plain program."""
        if self.sdk is None:
            raise SpecRefused(f"{self.name} is a plain program, no SDK service")
        return self.sdk

    def text(self) -> str:
        """The content of the specification's file; equal texts start equal instances."""
        return json.dumps({"version": SPEC_VERSION, **vars(self)}, default=vars)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> InstanceSpec:
        """The specification in a file; raises :class:`SpecRefused`, and OSError."""
        try:
            fields = json.loads(_read(path))
            version = fields.pop("version", None)
        except (ValueError, AttributeError, TypeError):
            raise SpecRefused(f"{os.fspath(path)} is not a specification of instances") from None
        if version != SPEC_VERSION:
            raise SpecRefused(
                f"{os.fspath(path)} has version {version!r}, and this release of socketpool reads "
                f"version {SPEC_VERSION}; restart the pool with the release that is installed"
            )
        try:
            for name, kind in (("limits", LimitSpec), ("sdk", SdkSpec), ("on_file", FileSpec)):
                if fields.get(name) is not None:
                    fields[name] = kind(**fields[name])
            return cls(**fields)
        except (SpecRefused, TypeError) as error:
            raise SpecRefused(f"{os.fspath(path)}: {error}") from None


def die_with_parent(sig: int) -> None:
    """Ask the kernel for ``sig`` when our parent ends, so that its death leaves no orphan.

    Does nothing where the kernel is not Linux.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(sig), 0, 0, 0)


def end_with_supervisord(pid_file: str) -> None:
    """Have the kernel end this process when supervisord does; exit if it already has.

    The kernel only watches the parent that we have by now, so look whether that is supervisord.
    """
    die_with_parent(signal.SIGKILL)
    if os.getppid() != int(_read(pid_file)):
        sys.exit("supervisord has ended")


def reset_signals() -> None:
    """Give every signal its default disposition and unblock all, as programs expect at their start.

    Dispositions of ignored signals and the mask outlive ``execve``, and Python ignores SIGPIPE and
    SIGXFSZ in every process of its own.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_inherited() -> None:
    """Close every descriptor but standard input, output and error."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux
        numbers = list(range(256))
    for number in numbers:
        if number >= FIRST_DESCRIPTOR:
            try:
                os.close(number)
            except OSError:  # that by which they were listed
                pass


def no_new_privileges() -> None:
    """Give up set-user-id programs for this process and all it starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_resources(limits: LimitSpec) -> None:
    """Apply those limits to this process that the kernel enforces."""
    for name, number in LIMITS.items():
        value: float | None = getattr(limits, name)
        if value is not None:
            _, hard = resource.getrlimit(number)
            bound = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
            resource.setrlimit(number, (bound, bound))


def fill(text: str, values: dict[str, str]) -> str:
    """Replace each ``{name}`` that ``values`` has, once; other braces stay."""
    return re.sub(r"\{([a-z_]+)\}", lambda match: values.get(match[1], match[0]), text)


def wipe(path: str | os.PathLike[str]) -> None:
    """Delete a file, a link or a tree, whatever programs made of it; what can't be deleted stays.

    No link is followed, closed folders are opened, and each folder is moved up before it is
    emptied: one tree may be deeper than calls may be nested or a path may be long.
    """
    root = os.fspath(path)
    pending = [root]
    if os.path.islink(root) or not os.path.isdir(root):
        pending = []
        try:
            os.unlink(root)
        except OSError:
            pass
    while pending:
        folder = pending.pop()
        try:
            os.chmod(folder, 0o700)
            with os.scandir(folder) as listed:
                entries = list(listed)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    pending.append(f"{root}/{os.urandom(8).hex()}")
                    os.rename(entry.path, pending[-1])
                else:
                    os.unlink(entry.path)
            if folder != root:
                os.rmdir(folder)
        except OSError:
            pass
    try:
        os.rmdir(root)
    except OSError:
        pass


def _read(path: str | os.PathLike[str]) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def main(spec_path: str, port: str, probing: str = "") -> NoReturn:
    """Become the program that the specification names, or with ``probing`` the probe of it."""
    try:
        spec = InstanceSpec.read(spec_path)
    except SpecRefused as error:
        sys.exit(str(error))
    if probing:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != int(probing):
            sys.exit("the pool server has ended")
    else:
        end_with_supervisord(spec.supervisord_pid)
    no_new_privileges()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    scratch = f"{spec.scratch}/{port}"
    values = {**spec.values, "port": port, "workspace": scratch}
    if spec.own_workspace:
        if not probing:
            wipe(scratch)
            os.makedirs(scratch, mode=0o700)
        limit_resources(spec.limits)
        os.chdir(scratch)
    if spec.notify and not probing:
        environment["NOTIFY_SOCKET"] = spec.notify
    for name, value in spec.environment.items():
        environment[name] = fill(value, values)
    argv = [fill(argument, values) for argument in (spec.probe or [] if probing else spec.argv)]
    reset_signals()
    close_inherited()
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        hint = "; install it" if isinstance(error, FileNotFoundError) else ""
        sys.exit(f"can't run {argv[0]!r}: {error.strerror}{hint}")


if __name__ == "__main__":
    main(*sys.argv[1:])
