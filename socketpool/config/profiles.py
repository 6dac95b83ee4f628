"""The client's own file, ``client.yml``: pools by name, and how each is reached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, field_validator

from socketpool.config.destination import Destination
from socketpool.config.fields import Listen, Strict
from socketpool.config.values import DEFAULT_POOL, Address, check_port
from socketpool.config.yamlfile import load
from socketpool.errors import ConfigError, UsageError

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


def _destination(text: str) -> str:
    try:
        Destination.parse(text)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
    return text


def _path(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: no such home; write the path in full") from None


_File = Annotated[Path, AfterValidator(_path)]


_Account = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$")]


class Profile(Strict):
    """One pool.  ``pool`` is as seen from the SSH host, if there is one.

    ``account`` is the one that runs the pool, for a pool of this machine.
    """

    pool: Listen = DEFAULT_POOL
    ssh: Annotated[str, AfterValidator(_destination)] | None = None
    ssh_config: _File | None = None
    token_file: _File | None = None
    account: _Account | None = None
    policy: _File | None = None

    @field_validator("pool")
    @classmethod
    def _port(cls, value: Address) -> Address:
        check_port(value.port)
        return value


class ClientFile(BaseModel):
    """The whole file."""

    model_config = Strict.model_config

    profiles: dict[_Name, Profile] = Field(default_factory=dict)


def client_file() -> Path:
    """Where the file is: in the XDG configuration home; raises ConfigError."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(home) if home.startswith("/") else Path.home() / ".config"
    except RuntimeError:
        raise ConfigError("no home directory to look for client.yml in") from None
    return base / "socketpool" / "client.yml"


def find_profile(name: str) -> Profile:
    """The profile of a name; raises ConfigError, and UsageError when there is none."""
    path = client_file()
    known = load(path, ClientFile).profiles if path.exists() else {}
    if name in known:
        return known[name]
    listed = ", ".join(f"@{each}" for each in sorted(known)) or "none"
    raise UsageError(
        f"no profile is named @{name}; there are: {listed}",
        hint=f"profiles are kept in {path}",
    )
