"""``socketpool``: the umbrella command for operators and for using single services.

The module of a verb is imported when the verb is called, so that ``socketpool plan`` starts fast
and works where the server's libraries are not installed.
"""

from __future__ import annotations

from typing import NoReturn

import click

import socketpool
from socketpool.cli.base import HELP_NAMES, run
from socketpool.cli.lazygroup import LazyGroup, Verb

_CLI = "socketpool.cli."

VERBS = {
    "archive": Verb(
        _CLI + "archive_commands", "archive", "Take apart and put together archives by hand."
    ),
    "check": Verb(
        _CLI + "operations",
        "check",
        "Check a pool's configuration and its catalogue, and start nothing.",
    ),
    "doctor": Verb(
        _CLI + "doctor",
        "doctor",
        "Look the pool of POOL.YML and its host over, before its first start or while it runs.",
    ),
    "drain": Verb(
        _CLI + "operations",
        "drain",
        "Grant no more leases on a SERVICE, an INSTANCE such as upload:21000, or all.",
    ),
    "explain": Verb(
        _CLI + "explain",
        "explain",
        "Show the history of LEASE: what was asked, waited and granted, where, and how it ended.",
    ),
    "lease": Verb(
        _CLI + "lease",
        "lease",
        "Lease SERVICES and print an ip:port for each, as soon as it answers there.",
    ),
    "leases": Verb(_CLI + "lease", "leases", "List the live leases."),
    "plan": Verb(
        _CLI + "archive_commands",
        "plan",
        "Show what of FILE would leave and what stays, and which rule says so.",
    ),
    "release": Verb(
        _CLI + "lease",
        "release",
        "End LEASE: its workspace is wiped and its instances go back to the pool.",
    ),
    "reload": Verb(
        _CLI + "operations",
        "reload",
        "Have the pool read its configuration again and apply what has changed.",
    ),
    "renew": Verb(_CLI + "lease", "renew", "Give LEASE another time to live."),
    "run": Verb(
        _CLI + "run", "run", "Run PROGRAM while SERVICES are leased for it; its exit code is ours."
    ),
    "serve": Verb(
        _CLI + "server", "serve", "Run a pool in the foreground, as socketpool_server does."
    ),
    "service": Verb(_CLI + "newservice", "service", "Write services of your own."),
    "services": Verb(_CLI + "status", "services", "Show the catalogue."),
    "sshd-config": Verb(
        _CLI + "sshdconfig",
        "sshd_config",
        "Print what sshd needs for an account that can reach the pool's ports and nothing else.",
    ),
    "status": Verb(
        _CLI + "status", "status", "Show every instance by service and port, and who holds it."
    ),
    "token": Verb(_CLI + "token", "token", "Tokens for the clients of a pool."),
    "tunnel": Verb(
        _CLI + "tunnel",
        "tunnel",
        "Lease SERVICES of the pool on HOST and make them reachable here, through SSH.",
    ),
}
"""Each with the first sentence of its help; a test holds them equal."""


@click.group(
    "socketpool",
    cls=LazyGroup,
    verbs=VERBS,
    context_settings={"help_option_names": HELP_NAMES},
)
@click.version_option(socketpool.__version__)
def command() -> None:
    """A pool of supervised services, leased by name."""


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool")
