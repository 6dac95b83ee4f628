"""``uploader_server``, ``vendor_server`` and ``downloader_server``: one instance without a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import socketpool
from socketpool.cli.base import HELP_NAMES, HostType, HowtoCommand, PortType, run, say, tell
from socketpool.cli.foreground import Stopper, StopRequested, free_port, warn_exposed, warn_root
from socketpool.config.values import Address
from socketpool.core.servicekinds import ServiceKind
from socketpool.development.standalone import StandaloneInstance, Tie, find_service, open_state
from socketpool.errors import UsageError
from socketpool.system.hostfacts import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, exists=True, path_type=Path)

LISTENING = "listening"
"""The runner's log entry from which on clients may come."""


def _server(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """A command that serves one instance."""

    def decorate(function: Callable[..., int]) -> click.Command:
        for extend in (
            click.version_option(socketpool.__version__),
            click.option(
                "--state-dir",
                type=click.Path(file_okay=False, path_type=Path),
                help="Where it keeps its files (default: a temporary folder of its own).",
            ),
            click.option(
                "--service", type=_FOLDER, help="Its folder (default: the service that is shipped)."
            ),
            click.argument("filename", type=_FILE),
            click.argument("port", type=PortType(lowest=0)),
            click.argument("ip", type=HostType()),
        ):
            function = extend(function)
        settings = {"help_option_names": HELP_NAMES}
        return click.command(name, cls=HowtoCommand, context_settings=settings)(function)

    return decorate


_replace_option = click.option(
    "--replace", is_flag=True, help="Replace a file that is there already."
)


@_server("uploader_server")
@_replace_option
def uploader(*, filename: Path, replace: bool, **given: Any) -> int:
    """Store what arrives."""
    file = filename.absolute()
    return _serve(ServiceKind.UPLOAD, Tie(file, file, replace), **given)


@_server("vendor_server")
@click.option("-o", "--output", type=_FILE, help="Where what was processed is stored.")
@_replace_option
def vendor(*, filename: Path, output: Path | None, replace: bool, **given: Any) -> int:
    """Process a file as what was uploaded."""
    file = filename.absolute()
    result = output or file.with_name(f"{file.stem}.processed{file.suffix}")
    return _serve(ServiceKind.VENDOR, Tie(file, result.absolute(), replace), **given)


@_server("downloader_server")
def downloader(*, filename: Path, **given: Any) -> int:
    """Send a file as what was processed."""
    file = filename.absolute()
    return _serve(ServiceKind.DOWNLOAD, Tie(file, file, replace=True), **given)


def _serve(
    kind: ServiceKind, tie: Tie, *, ip: str, port: int, service: Path | None, state_dir: Path | None
) -> int:
    """Run an instance until a signal; returns the exit code."""
    _check(tie)
    found = find_service(kind, service)
    host = resolve(ip)
    warn_root()
    warn_exposed("service", host)
    listen = Address(host=host, port=port or free_port(host))
    stopper = Stopper()
    try:
        stopper.listen()
        with open_state(state_dir) as state:
            instance = StandaloneInstance(found, listen, state, tie)
            try:
                instance.start()
                output = instance.output(stopper.wait)
                _follow(output, lambda: _announce(kind, listen, tie, instance))
            finally:
                instance.stop()
    except StopRequested:
        say("stopped")
        return 0
    say("the service ended by itself")
    return 1


def _check(tie: Tie) -> None:
    """Find out now rather than after somebody has sent something."""
    if not tie.result.parent.is_dir():
        raise UsageError(f"{tie.result.parent} is not a folder")
    if tie.result.exists() and not tie.replace:
        raise UsageError(
            f"{tie.result} is there already",
            hint="move it away, or say --replace; it is not the client's archive, is it?",
        )


def _follow(output: Iterator[dict[str, Any]], announce: Callable[[], None]) -> None:
    """Show what the instance logs until it ends."""
    for entry in output:
        event = str(entry.pop("event", ""))
        if event == LISTENING:
            announce()
            continue
        for known in ("time", "level", "logger", "lease", "port"):
            entry.pop(known, None)
        trace = str(entry.pop("traceback", ""))
        say(" ".join([event, *(f"{name}={value}" for name, value in entry.items())]))
        if trace:
            say(trace)


def _announce(kind: ServiceKind, listen: Address, tie: Tie, instance: StandaloneInstance) -> None:
    tell(f"{kind} ready at {listen.host} port {listen.port}")
    if kind is ServiceKind.UPLOAD:
        tell(f"  stores what arrives as {tie.result}")
    elif kind is ServiceKind.VENDOR:
        tell(f"  processes {tie.file} into {tie.result}")
    else:
        tell(f"  sends {tie.file}")
    tell(f"token file:    {instance.token_file}")
    tell(
        f"use it:        {kind.facts.client_command} {listen.host} {listen.port} site.zip "
        f"--lease {instance.token_file}"
    )
    tell("stop it:       Ctrl-C")


def uploader_main() -> NoReturn:
    """Entry point."""
    run(uploader, "uploader_server")


def vendor_main() -> NoReturn:
    """Entry point."""
    run(vendor, "vendor_server")


def downloader_main() -> NoReturn:
    """Entry point."""
    run(downloader, "downloader_server")
