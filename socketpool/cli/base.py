"""What the commands share: the HOWTO as help, errors as sentences, exit codes."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

import socketpool
from socketpool.config.values import check_host, check_port
from socketpool.errors import INTERRUPTED_EXIT_CODE, SocketpoolError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

HELP_NAMES = ["-help", "--help", "-h"]
EVENTS_OPTION = "--json"
"""By which a program asks a command for its events; `run` looks for it too."""


def howto(command: str) -> str:
    """The HOWTO of a command, which comes with the package."""
    return (Path(socketpool.__file__).parent / "howto" / f"{command}.md").read_text("utf-8")


def printable(text: str) -> str:
    """Text of others without what a terminal would obey."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def say(text: str = "") -> None:
    """A line for the user, on stderr; whether anybody reads it must not decide over the work."""
    with suppress(BrokenPipeError):
        click.echo(printable(text), err=True)


def tell(text: str) -> None:
    """A line of the output; when nobody reads that any more, the work goes on all the same."""
    try:
        click.echo(text)
    except BrokenPipeError:
        _forget_stdout()


def make_console() -> Console:
    """Where tables are printed; what goes to a file or a pipe is not folded."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    return console


class HowtoCommand(click.Command):
    """A command whose help is its HOWTO followed by its options."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the HOWTO, then the options."""
        formatter.write(howto(self.name or ""))
        formatter.write("\n")
        self.format_options(ctx, formatter)


class HowtoGroup(click.Group):
    """A group of commands whose help is its HOWTO followed by its options and commands."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the HOWTO, then the options and commands."""
        formatter.write(howto(self.name or ""))
        formatter.write("\n")
        self.format_options(ctx, formatter)


class HostType(click.ParamType[str]):
    """An IPv4 or IPv6 address, or a name."""

    name = "ip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it; brackets around IPv6 are taken off."""
        text = str(value)
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        try:
            return check_host(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PortType(click.ParamType[int]):
    """A port number."""

    name = "port"

    def __init__(self, lowest: int) -> None:
        self._lowest = lowest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Check its range."""
        try:
            return check_port(str(value), lowest=self._lowest)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command and exit with the documented code; errors become sentences on stderr."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)  # what Ctrl-C gives back, they do too
    for stream in (sys.stdout, sys.stderr):
        # What the terminal can't show is shown escaped, whatever its encoding.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    action = functools.partial(command.main, prog_name=name, standalone_mode=False)
    sys.exit(exit_code_of(action, name, events=_tells_events(command, sys.argv[1:])))


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _tells_events(command: click.Command, arguments: list[str]) -> bool:
    """Whether a program reads the output, even where the command line can't be understood."""
    return EVENTS_OPTION in arguments and any(EVENTS_OPTION in p.opts for p in command.params)


class _Failure(NamedTuple):
    """A failure as the user is told of it."""

    code: str
    exit_code: int
    message: str
    hint: str = ""


def exit_code_of(action: Callable[[], Any], name: str, *, events: bool = False) -> int:
    """Do it; returns the exit code, having told the user what went wrong, if anything.

    With ``events`` the output is told too, as the JSON object that ends a run which has failed.
    """
    try:
        result = action()
    except click.exceptions.Exit as error:
        return error.exit_code
    except BrokenPipeError:
        # Whoever reads our output has had enough; what there was to do is done by then.
        _forget_stdout()
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: a bug
        failure = _tell_user(error, name)
        if events:
            tell(json.dumps({"event": "error", **failure._asdict()}))
        return failure.exit_code
    return result if isinstance(result, int) else 0


def _tell_user(error: BaseException, name: str) -> _Failure:
    """Sentences on stderr for whatever ended the command."""
    match error:
        case SocketpoolError():
            failure = _Failure(error.code, error.exit_code, error.message, error.hint)
        case click.exceptions.NoArgsIsHelpError():
            say(error.format_message())
            return _Failure(UsageError.code, UsageError.exit_code, "no arguments were given")
        case click.UsageError():
            name = error.ctx.command_path if error.ctx is not None else name
            hint = f"{name} --help explains the command"
            failure = _Failure(UsageError.code, UsageError.exit_code, error.format_message(), hint)
        case click.Abort() | KeyboardInterrupt():
            failure = _Failure("interrupted", INTERRUPTED_EXIT_CODE, "interrupted")
        case _:
            import traceback

            say("".join(traceback.format_exception(error)))
            bug = "this is a bug; please report it with the lines above"
            failure = _Failure(SocketpoolError.code, SocketpoolError.exit_code, bug)
    say(f"{name}: {failure.message}")
    if failure.hint:
        say(f"  {failure.hint}")
    return failure


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
