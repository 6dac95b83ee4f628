"""Where a client of a single service finds the lease's token: never on a command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from socketpool import variables
from socketpool.client.answers import LeaseHold, parse_record_json
from socketpool.credentials.tokens import MAX_TOKEN_CHARACTERS
from socketpool.errors import ConfigError, NotAuthorised

STDIN = "-"

_MAX_TOKEN_BYTES = 1 << 20


class Shown(NamedTuple):
    """What a client was given of a lease."""

    token: str
    lease: LeaseHold | None = None
    """Where more than the token is known: with it the lease can be renewed."""


def find_lease_token(file: str | None) -> Shown:
    """The token in the file, or on standard input for ``-``, else in the environment.

    Either holds the token alone, or what ``socketpool lease --json`` printed.  Raises ConfigError
    for anything else, NotAuthorised when there is none.
    """
    if file == STDIN:
        return parse_token(sys.stdin.read(_MAX_TOKEN_BYTES), "standard input")
    if file:
        return parse_token(_read(Path(file)), file)
    if os.environ.get(variables.LEASE_TOKEN):
        return parse_token(os.environ[variables.LEASE_TOKEN], variables.LEASE_TOKEN)
    raise NotAuthorised(
        "no lease token to show to the service",
        hint="name its file with --lease (- is standard input), "
        f"or put it into {variables.LEASE_TOKEN}",
    )


def parse_token(text: str, where: str) -> Shown:
    """The token in a text; an error tells where it was from, not what it was."""
    shown = Shown(text.strip())
    if shown.token.startswith("{"):
        try:
            lease = parse_record_json(LeaseHold, shown.token)
        except ValueError:
            raise ConfigError(f"{where}: no lease in it") from None
        shown = Shown(lease.token, lease)
    token = shown.token
    if (
        not token
        or len(token) > MAX_TOKEN_CHARACTERS
        or not (token.isascii() and token.isprintable())
    ):
        raise ConfigError(
            f"{where}: expected a lease token", hint="or what socketpool lease --json printed"
        )
    return shown


def _read(path: Path) -> str:
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            return file.read(_MAX_TOKEN_BYTES)
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a token"
        raise ConfigError(f"{path}: {reason}") from None
