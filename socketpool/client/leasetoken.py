"""Where a client of a single service finds the lease's token: never on a command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from socketpool.errors import ConfigError, NotAuthorised
from socketpool.rsi.tokens import MAX_TOKEN_CHARACTERS

ENVIRONMENT = "SOCKETPOOL_LEASE_TOKEN"
STDIN = "-"

_MOST = 1 << 20


def find_lease_token(file: str | None) -> str:
    """The token in the file, or on standard input for ``-``, else in the environment.

    Either holds the token alone, or what ``socketpool lease --json`` printed.  Raises ConfigError
    for anything else, NotAuthorised when there is none.
    """
    if file == STDIN:
        return parse_token(sys.stdin.read(_MOST), "standard input")
    if file:
        return parse_token(_read(Path(file)), file)
    if os.environ.get(ENVIRONMENT):
        return parse_token(os.environ[ENVIRONMENT], ENVIRONMENT)
    raise NotAuthorised(
        "no lease token to show to the service",
        hint=f"name its file with --lease (- is standard input), or put it into {ENVIRONMENT}",
    )


def parse_token(text: str, where: str) -> str:
    """The token in a text; an error tells where it was from, not what it was."""
    token = text.strip()
    if token.startswith("{"):
        try:
            token = str(json.loads(token)["token"])
        except (ValueError, KeyError, RecursionError):
            raise ConfigError(f"{where}: no lease in it") from None
    if (
        not token
        or len(token) > MAX_TOKEN_CHARACTERS
        or not (token.isascii() and token.isprintable())
    ):
        raise ConfigError(
            f"{where}: expected a lease token", hint="or what socketpool lease --json printed"
        )
    return token


def _read(path: Path) -> str:
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            return file.read(_MOST)
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a token"
        raise ConfigError(f"{path}: {reason}") from None
