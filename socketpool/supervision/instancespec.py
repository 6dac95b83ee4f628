"""The specification with which the instances of a service are started: written, read, filled in.

The launcher of instances imports this module at each start, so it needs little of the standard
library: neither typing nor dataclasses.
"""

from __future__ import annotations

import json
import os
import re

TYPE_CHECKING = False  # as typing's own, which takes as long to import as all the rest
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # dataclasses takes twice as long to import as all the rest
        """Leave the class as it is; `Record` does the work."""
        return lambda cls: cls


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


def fill(text: str, values: dict[str, str]) -> str:
    """Replace each ``{name}`` that ``values`` has, once; other braces stay."""
    return re.sub(r"\{([a-z_]+)\}", lambda match: values.get(match[1], match[0]), text)


def _read(path: str | os.PathLike[str]) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
