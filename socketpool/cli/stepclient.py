"""``uploader_client``, ``vendor_client`` and ``downloader_client``: a step of the main job each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import socketpool
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, run
from socketpool.cli.hook import load_hook
from socketpool.cli.progress import with_reporter
from socketpool.client.leasetoken import ENVIRONMENT, find_lease_token
from socketpool.client.single import SingleStep
from socketpool.client.trip import Wishes

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.client.reporter import Reporter

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


def _client(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command that runs the client portion of one service."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for extend in (
            with_reporter,
            click.version_option(socketpool.__version__),
            click.option(
                "--lease",
                "lease_token_file",
                metavar="FILE",
                help=f"The file with the lease's token, - for standard input; else {ENVIRONMENT}.",
            ),
            click.argument("filename", type=click.Path(exists=True, path_type=Path)),
            click.argument("port", type=PortType(lowest=1)),
            click.argument("ip", type=HostType()),
        ):
            function = extend(function)
        settings = {"help_option_names": HELP_NAMES}
        return click.command(name, cls=HowtoCommand, context_settings=settings)(function)

    return decorate


def _step(reporter: Reporter, given: dict[str, Any], wishes: Wishes) -> SingleStep:
    token = find_lease_token(given["lease_token_file"])
    return SingleStep(
        given["ip"], given["port"], token, given["filename"], wishes=wishes, reporter=reporter
    )


@_client("uploader_client")
@click.option("--policy", type=_EXISTING, help="Rules about what may leave.")
@click.option(
    "--hook", type=_EXISTING, help="A Python file whose is_implodable(member) keeps more."
)
def uploader(reporter: Reporter, *, policy: Path | None, hook: Path | None, **given: Any) -> None:
    """Send what the policy lets out of a file."""
    _step(reporter, given, Wishes(policy=policy, hook=load_hook(hook))).upload()


@_client("vendor_client")
def vendor(reporter: Reporter, **given: Any) -> None:
    """Have what was uploaded processed."""
    _step(reporter, given, Wishes()).vendor()


@_client("downloader_client")
@click.option("-o", "--output", type=_FILE, help="Write the result there, not over FILENAME.")
@click.option("--backup", default="", metavar="SUFFIX", help="Keep the old file under a suffix.")
@click.option("--allow-signed", is_flag=True, help="Change an archive although it is signed.")
def downloader(
    reporter: Reporter, *, output: Path | None, backup: str, allow_signed: bool, **given: Any
) -> None:
    """Fetch what was processed and merge it into a file."""
    wishes = Wishes(output=output, backup=backup, allow_signed=allow_signed)
    _step(reporter, given, wishes).download()


def uploader_main() -> NoReturn:
    """Entry point."""
    run(uploader, "uploader_client")


def vendor_main() -> NoReturn:
    """Entry point."""
    run(vendor, "vendor_client")


def downloader_main() -> NoReturn:
    """Entry point."""
    run(downloader, "downloader_client")
