"""``socketpool_client``: one run of the main job."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import NoReturn

import click

import socketpool
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, printable, run
from socketpool.cli.pooloptions import state_dir_option, token_file_option
from socketpool.cli.progress import make_reporter
from socketpool.client.api import PoolClient
from socketpool.client.roundtrip import RoundTrip, Summary
from socketpool.client.token import find_token


@click.command(
    "socketpool_client", cls=HowtoCommand, context_settings={"help_option_names": HELP_NAMES}
)
@click.argument("ip", type=HostType())
@click.argument("port", type=PortType(lowest=1))
@click.argument("filename", type=click.Path(path_type=Path))
@click.argument("services", nargs=-1, required=True)
@token_file_option
@state_dir_option
@click.option(
    "--wait",
    type=click.FloatRange(0, 300),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for services that are all in use.",
)
@click.version_option(socketpool.__version__)
def command(
    ip: str,
    port: int,
    filename: Path,
    services: tuple[str, ...],
    token_file: str | None,
    state_dir: str | None,
    wait: float,
) -> None:
    """Lease the services, run the client portion of each in this order, release."""
    token = find_token(ip, port, file=token_file, state_dir=state_dir)
    client = PoolClient(ip, port, token)
    with closing(client), closing(make_reporter()) as reporter:
        summary = RoundTrip(client, filename, services, wait=wait, reporter=reporter).run()
    for line in summary_lines(summary):
        click.echo(printable(line))


def summary_lines(s: Summary) -> list[str]:
    """The summary as it is printed."""
    share = s.sent_bytes / s.archive_bytes if s.archive_bytes else 0.0
    lines = [
        f"{s.file}: {s.members} members: {s.sent} sent, {s.kept} kept back",
        f"left this machine: {s.sent_bytes:,} of {s.archive_bytes:,} bytes ({share:.1%})",
        *(f"vendor: {line}" for line in s.reports),
    ]
    if s.changed is not None:
        lines.append(
            f"changed: {s.changed} members; the other {s.members - s.changed} are as they were"
        )
    lines.append(f"took {s.seconds:.2f} s; lease {s.lease} at {s.server}")
    return lines


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool_client")
