"""``socketpool``: the umbrella command for operators and for using single services."""

from __future__ import annotations

from typing import NoReturn

import click

import socketpool
from socketpool.cli.archive_commands import archive, plan
from socketpool.cli.base import HELP_NAMES, HowtoGroup, run
from socketpool.cli.doctor import doctor
from socketpool.cli.explain import explain
from socketpool.cli.lease import lease, leases, release, renew
from socketpool.cli.newservice import service
from socketpool.cli.operations import check, drain, reload
from socketpool.cli.run import run as run_program
from socketpool.cli.server import serve
from socketpool.cli.sshdconfig import sshd_config
from socketpool.cli.status import services, status
from socketpool.cli.token import token
from socketpool.cli.tunnel import tunnel


@click.group("socketpool", cls=HowtoGroup, context_settings={"help_option_names": HELP_NAMES})
@click.version_option(socketpool.__version__)
def command() -> None:
    """A pool of supervised services, leased by name."""


for subcommand in (
    *(serve, check, doctor, status, services, drain, reload),
    *(lease, leases, renew, release, explain, run_program),
    *(tunnel, sshd_config, plan, archive, service, token),
):
    command.add_command(subcommand)


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool")
