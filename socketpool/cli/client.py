"""``socketpool_client``: one run of the main job."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import NoReturn

import click

import socketpool
from socketpool.cli.archive_commands import show_plan
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, printable, run
from socketpool.cli.hook import load_hook
from socketpool.cli.pooloptions import state_dir_option, token_file_option
from socketpool.cli.progress import make_reporter
from socketpool.client.api import PoolClient
from socketpool.client.roundtrip import RoundTrip, Summary, Wishes
from socketpool.client.token import find_access

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    "socketpool_client", cls=HowtoCommand, context_settings={"help_option_names": HELP_NAMES}
)
@click.argument("ip", type=HostType())
@click.argument("port", type=PortType(lowest=1))
@click.argument("filename", type=click.Path(exists=True, path_type=Path))
@click.argument("services", nargs=-1, required=True)
@click.option("--policy", type=_EXISTING, help="Rules about what may leave.")
@click.option(
    "--hook", type=_EXISTING, help="A Python file whose is_implodable(member) keeps more."
)
@click.option("--dry-run", is_flag=True, help="Show what would leave; send nothing.")
@click.option("-o", "--output", type=_FILE, help="Write the result there, not over FILENAME.")
@click.option("--backup", default="", metavar="SUFFIX", help="Keep the old file under a suffix.")
@click.option("--receipt", type=_FILE, help="Write what was sent and changed there, as JSON.")
@click.option("--allow-signed", is_flag=True, help="Change an archive although it is signed.")
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
    *,
    policy: Path | None,
    hook: Path | None,
    dry_run: bool,
    output: Path | None,
    backup: str,
    receipt: Path | None,
    allow_signed: bool,
    token_file: str | None,
    state_dir: str | None,
    wait: float,
) -> None:
    """Lease the services, run the client portion of each in this order, release."""
    loaded = load_hook(hook)
    if dry_run:
        show_plan(filename, policy, loaded)
        return
    wishes = Wishes(
        wait=wait,
        policy=policy,
        hook=loaded,
        output=output,
        backup=backup,
        receipt=receipt,
        allow_signed=allow_signed,
    )
    access = find_access(ip, port, file=token_file, state_dir=state_dir)
    client = PoolClient(access.host, port, access.token)
    with closing(client), closing(make_reporter()) as reporter:
        summary = RoundTrip(client, filename, services, wishes, reporter=reporter).run()
    for line in summary_lines(summary):
        click.echo(printable(line))


def summary_lines(s: Summary) -> list[str]:
    """The summary as it is printed."""
    share = s.sent_bytes / s.source_bytes if s.source_bytes else 0.0
    lines = [
        f"{s.file}: {s.members} members: {s.sent} sent, {s.kept} kept back",
        f"left this machine: {s.sent_bytes:,} of {s.source_bytes:,} bytes"
        + (f" ({share:.1%})" if share < 1 else ""),
        *s.reports,
    ]
    if s.changed is not None:
        lines.append(
            f"changed: {s.changed} members; the other {s.members - s.changed} are as they were"
        )
        if s.result and Path(s.result) != Path(s.file).resolve():
            lines.append(f"written to {s.result}")
        if s.backup:
            lines.append(f"the old file is {s.backup}")
    lines.append(f"took {s.seconds:.2f} s; lease {s.lease} at {s.server}")
    return lines


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool_client")
