"""``socketpool_client``: one run of the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

import socketpool
from socketpool.cli.access import Way, reach
from socketpool.cli.archive_commands import show_plan
from socketpool.cli.base import HELP_NAMES, HostType, PortType, run, say
from socketpool.cli.hook import load_hook
from socketpool.cli.pooloptions import (
    account_option,
    state_dir_option,
    token_file_option,
    wait_option,
)
from socketpool.cli.profiled import ProfiledCommand
from socketpool.cli.progress import with_reporter
from socketpool.cli.reporters import JsonReporter
from socketpool.cli.sshoptions import accept_new_option, ssh_config_option, ssh_option
from socketpool.client.jobs import split_words
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import SocketpoolError, UsageError

if TYPE_CHECKING:
    from socketpool.client.reporter import Reporter

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(
    "socketpool_client", cls=ProfiledCommand, context_settings={"help_option_names": HELP_NAMES}
)
@click.argument("ip", type=HostType())
@click.argument("port", type=PortType(lowest=1))
@click.argument("filename", type=click.Path(exists=True, path_type=Path))
@click.argument("services", nargs=-1, required=True, metavar="SERVICES... [FILE2 SERVICES...]...")
@click.option("--policy", type=_EXISTING, help="Rules about what may leave.")
@click.option(
    "--hook", type=_EXISTING, help="A Python file whose is_implodable(member) keeps more."
)
@click.option("--dry-run", is_flag=True, help="Show what would leave; send nothing.")
@click.option("-o", "--output", type=_FILE, help="Write the result there, not over FILENAME.")
@click.option("--backup", default="", metavar="SUFFIX", help="Keep the old file under a suffix.")
@click.option("--receipt", type=_FILE, help="Write what was sent and changed there, as JSON.")
@click.option("--allow-signed", is_flag=True, help="Change an archive although it is signed.")
@click.option("--allow-empty", is_flag=True, help="Run also when no member may leave.")
@token_file_option
@state_dir_option
@account_option
@wait_option
@ssh_option
@ssh_config_option
@accept_new_option
@click.version_option(socketpool.__version__)
@with_reporter
def command(
    reporter: Reporter,
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
    allow_empty: bool,
    token_file: str | None,
    state_dir: str | None,
    account: str | None,
    wait: float,
    ssh: str | None,
    ssh_config: Path | None,
    accept_new: bool,
) -> None:
    """Lease the services, run the client portion of each in this order, release."""
    from socketpool.client.roundtrip import Run, RunOptions

    options = RunOptions(
        wait=wait,
        policy=policy,
        hook=load_hook(hook),
        output=output,
        backup=backup,
        receipt=receipt,
        allow_signed=allow_signed,
        allow_empty=allow_empty,
    )
    if dry_run and isinstance(reporter, JsonReporter):
        raise UsageError(
            "--dry-run has no events to tell", hint="for programs there is: socketpool plan --json"
        )
    if dry_run:
        for path in (filename, *(Path(word) for word in services if _names_a_file(word))):
            show_plan(path, policy, options.hook)
        return
    way = Way(
        host=ip,
        port=port,
        token_file=token_file,
        state_dir=state_dir,
        account=account,
        ssh=ssh,
        ssh_config=ssh_config,
        accept_new=accept_new,
    )
    with reach(way, reporter.note) as client:
        kinds = client.kinds()
        jobs = split_words(filename, services, kinds, _find)
        if len(jobs) > 1 and (output or receipt):
            raise UsageError("--output and --receipt are for one file, and several are named")
        file_runs = Run(client, jobs, options, reporter=reporter, dial=client.dial)
        try:
            file_runs.run(kinds)
        except (SocketpoolError, KeyboardInterrupt):
            reporter.close()
            done = ", ".join(summary.file for summary in file_runs.done)
            if done:
                say(f"done before that, and left as it is now: {done}")
            raise


def _find(word: str) -> Path | None:
    return Path(word) if _exists(word) else None


def _names_a_file(word: str) -> bool:
    """Without a pool that tells its services, the usual ones are no files."""
    return word not in set(ServiceKind) and _exists(word)


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # a name that no file can have
        return False


def main() -> NoReturn:
    """Entry point."""
    run(command, "socketpool_client")
