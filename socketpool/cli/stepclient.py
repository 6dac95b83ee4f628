"""``uploader_client``, ``vendor_client`` and ``downloader_client``: a step of the main job each.

What only a step needs is imported when the step runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import socketpool
from socketpool import variables
from socketpool.cli.access import pool_behind, told, tunnel_of, way_through
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, run
from socketpool.cli.hook import load_hook
from socketpool.cli.pooloptions import open_pool, pool_options
from socketpool.cli.progress import with_reporter
from socketpool.cli.sshoptions import accept_new_option, ssh_config_option, ssh_option
from socketpool.errors import SocketpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from socketpool.client.answers import LeaseHold
    from socketpool.client.api import PoolClient
    from socketpool.client.dial import Dial
    from socketpool.client.filerun import RunOptions
    from socketpool.client.reporter import Reporter
    from socketpool.client.single import SingleStep

_FILE = click.Path(dir_okay=False, path_type=Path)
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
_REMOTE = ("pool", "token_file", "state_dir")
_POOL = (*_REMOTE, "account")
_SSH = ("ssh", "ssh_config", "accept_new")


def _client(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command that runs the client portion of one service."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for extend in (
            with_reporter,
            click.version_option(socketpool.__version__),
            pool_options,
            accept_new_option,
            ssh_config_option,
            ssh_option,
            click.option(
                "--lease",
                "lease_token_file",
                metavar="FILE",
                help="The file with the lease's token, - for standard input; "
                f"else {variables.LEASE_TOKEN}.",
            ),
            click.argument("filename", type=click.Path(exists=True, path_type=Path)),
            click.argument("port", type=PortType(lowest=1)),
            click.argument("ip", type=HostType()),
        ):
            function = extend(function)
        settings = {"help_option_names": HELP_NAMES}
        return click.command(name, cls=HowtoCommand, context_settings=settings)(function)

    return decorate


@contextmanager
def _step(reporter: Reporter, given: dict[str, Any], options: RunOptions) -> Iterator[SingleStep]:
    """The step, during which the lease is renewed if its pool is at hand."""
    from socketpool.client.apitoken import local_accounts
    from socketpool.client.dial import TcpDial
    from socketpool.client.leasetoken import find_lease_token
    from socketpool.client.single import SingleStep

    shown = find_lease_token(given["lease_token_file"])
    place = (given["ip"], given["port"])
    pool: dict[str, str | None] = {name: given[name] for name in _POOL}
    with ExitStack() as stack:
        if given["ssh"] is None:
            dial: Dial = TcpDial(local_accounts(given["account"], given["state_dir"]))
            opening = open_pool(**pool)
        else:
            way = way_through(**{name: given[name] for name in (*_REMOTE, *_SSH)})
            tunnel = stack.enter_context(tunnel_of(way, reporter.note, told(reporter.note)))
            dial = tunnel.dial
            opening = pool_behind(tunnel, way)
        if shown.lease is not None:
            _renew(stack, shown.lease, reporter, opening, named=any(pool.values()))
        yield SingleStep(
            *place, shown.token, given["filename"], options=options, reporter=reporter, dial=dial
        )


def _renew(
    stack: ExitStack,
    lease: LeaseHold,
    reporter: Reporter,
    pool: AbstractContextManager[PoolClient],
    *,
    named: bool,
) -> None:
    """Renew the lease until the stack ends; raises why that can't be done if a pool was named."""
    try:
        client = stack.enter_context(pool)
        client.renew(lease.id)
    except SocketpoolError as error:
        if named:
            raise
        reporter.note(f"nobody renews the lease meanwhile: {error.message}")
    else:
        from socketpool.client.renewal import renewed

        stack.enter_context(renewed(client, lease))


@_client("uploader_client")
@click.option("--policy", type=_EXISTING, help="Rules about what may leave.")
@click.option(
    "--hook", type=_EXISTING, help="A Python file whose is_implodable(member) keeps more."
)
@click.option("--allow-empty", is_flag=True, help="Run also when no member may leave.")
def uploader(
    reporter: Reporter,
    *,
    policy: Path | None,
    hook: Path | None,
    allow_empty: bool,
    **given: Any,
) -> None:
    """Send what the policy lets out of a file."""
    from socketpool.client.filerun import RunOptions

    options = RunOptions(policy=policy, hook=load_hook(hook), allow_empty=allow_empty)
    with _step(reporter, given, options) as step:
        step.upload()


@_client("vendor_client")
def vendor(reporter: Reporter, **given: Any) -> None:
    """Have what was uploaded processed."""
    from socketpool.client.filerun import RunOptions

    with _step(reporter, given, RunOptions()) as step:
        step.vendor()


@_client("downloader_client")
@click.option("-o", "--output", type=_FILE, help="Write the result there, not over FILENAME.")
@click.option("--backup", default="", metavar="SUFFIX", help="Keep the old file under a suffix.")
@click.option("--allow-signed", is_flag=True, help="Change an archive although it is signed.")
def downloader(
    reporter: Reporter, *, output: Path | None, backup: str, allow_signed: bool, **given: Any
) -> None:
    """Fetch what was processed and merge it into a file."""
    from socketpool.client.filerun import RunOptions

    options = RunOptions(output=output, backup=backup, allow_signed=allow_signed)
    with _step(reporter, given, options) as step:
        step.download()


def uploader_main() -> NoReturn:
    """Entry point."""
    run(uploader, "uploader_client")


def vendor_main() -> NoReturn:
    """Entry point."""
    run(vendor, "vendor_client")


def downloader_main() -> NoReturn:
    """Entry point."""
    run(downloader, "downloader_client")
