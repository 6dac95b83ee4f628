"""``socketpool token``: tokens for the clients of a pool."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from socketpool import variables
from socketpool.cli.base import say
from socketpool.config.clients import check_client_name, token_hash
from socketpool.errors import UsageError


@click.group("token")
def token() -> None:
    """Tokens for the clients of a pool."""


@token.command("new")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the token to a new file there, for the client alone, not to standard output.",
)
def new(name: str, output: Path | None) -> None:
    """Make a token for the client NAME.

    The token is shown once and kept nowhere; the pool's file gets its hash, which is told on
    standard error.
    """
    try:
        check_client_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    made = secrets.token_urlsafe(32)
    if output is None:
        click.echo(made)
    else:
        _write(output, made)
    say("Add this to the pool's file and reload the pool (socketpool reload):")
    say(f"clients:\n  {name}:\n    token: {token_hash(made)}")
    say("    # services: [upload, vendor, download]\n    # leases: 4")
    kept = "that line" if output is None else str(output)
    where = f"{variables.TOKEN_FILE} or --token-file"
    say(f"The client keeps {kept} in a file of its own: {where}.")


def _write(path: Path, made: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as out:  # noqa: PTH123 - a descriptor
            out.write(made + "\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="name a new file") from None
