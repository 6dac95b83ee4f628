"""What the commands share: exit codes, help, and text that a terminal may see."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.cli import client, main, server, stepclient, stepserver
from socketpool.cli.base import HELP_NAMES, HostType, PortType, exit_code_of, howto, printable
from socketpool.cli.summarytext import summary_lines
from socketpool.client.summary import Summary
from socketpool.errors import SocketpoolError, TimedOut, UsageError
from socketpool.logs import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = {
    "socketpool": main.command,
    "socketpool_server": server.command,
    "socketpool_client": client.command,
    "uploader_client": stepclient.uploader,
    "uploader_server": stepserver.uploader,
    "vendor_client": stepclient.vendor,
    "vendor_server": stepserver.vendor,
    "downloader_client": stepclient.downloader,
    "downloader_server": stepserver.downloader,
}


def raising(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("cls", [TimedOut, UsageError, SocketpoolError])
def test_a_foreseen_failure_is_told_in_words_with_its_code(
    cls: type[SocketpoolError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(raising(cls("what", hint="what next")), "cmd") == cls.exit_code
    assert capsys.readouterr() == ("", "cmd: what\n  what next\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raising(error), "cmd") == 130
    assert capsys.readouterr().err == "cmd: interrupted\n"


def test_the_unexpected_is_1_and_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raising(ZeroDivisionError("oops")), "cmd") == 1
    assert "ZeroDivisionError: oops" in (err := capsys.readouterr().err)
    assert "bug" in err


@pytest.mark.parametrize("error", [click.UsageError("no"), click.BadParameter("no")])
def test_wrong_usage_is_2(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(raising(error), "cmd") == 2
    assert "cmd --help" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "exit_code", "message"),
    [
        (TimedOut("what", hint="what next"), "timed-out", 8, "what"),
        (click.BadParameter("no"), "usage", 2, "no"),
        (KeyboardInterrupt(), "interrupted", 130, "interrupted"),
        (ZeroDivisionError("oops"), "unexpected", 1, "bug"),
    ],
)
def test_a_program_that_reads_events_is_told_of_any_failure_too(
    error: BaseException,
    code: str,
    exit_code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(raising(error), "cmd", events=True) == exit_code
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert set(told) == {"event", "code", "exit_code", "message", "hint"}
    assert (told["event"], told["code"], told["exit_code"]) == ("error", code, exit_code)
    assert message in told["message"]
    assert message in err


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1), ("text", 0)])
def test_what_an_action_returns_is_its_code_if_it_is_one(result: object, code: int) -> None:
    assert exit_code_of(lambda: result, "cmd") == code


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", HELP_NAMES)
def test_help_is_the_howto(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = exit_code_of(
        lambda: COMMANDS[name].main([option], prog_name=name, standalone_mode=False), name
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert out.startswith(howto(name))
    assert "--help" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_found_in_any_directory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert howto(name).strip()


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31mred", "a\rb", "\x07", "\x9b31m", "\u202egnp.exe", "\x00", "\x7f"]
)
def test_nothing_that_a_terminal_obeys_is_printed(text: str) -> None:
    shown = printable(text)
    assert "\N{REPLACEMENT CHARACTER}" in shown
    assert not any(c in shown for c in "\x1b\r\x07\x9b\u202e\x00\x7f")


@given(st.text())
def test_what_is_printed_is_of_the_same_length_and_harmless(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_ordinary_text_is_printed_as_it_is() -> None:
    assert printable("Grüße, 世界 \N{GRINNING FACE}\n\tend") == (
        "Grüße, 世界 \N{GRINNING FACE}\n\tend"
    )


@pytest.mark.parametrize("given_", ["127.0.0.1", "::1", "localhost", "pool.example.org"])
def test_an_ip_may_be_v4_v6_or_a_name(given_: str) -> None:
    assert HostType().convert(given_, None, None) == given_
    assert HostType().convert("[::1]", None, None) == "::1"


@pytest.mark.parametrize("given_", ["", "256.1.1.1", "a b", "::zz", "[]", "-x", "1.2.3"])
def test_a_bad_ip_is_wrong_usage(given_: str) -> None:
    with pytest.raises(click.UsageError, match="neither an IP address nor a host name"):
        HostType().convert(given_, None, None)


@pytest.mark.parametrize("given_", ["0", "65536", "-1", "http", "", "1.5"])
def test_a_bad_port_is_wrong_usage(given_: str) -> None:
    with pytest.raises(click.UsageError, match="from 1 to 65535"):
        PortType(lowest=1).convert(given_, None, None)


def test_a_server_may_take_port_0() -> None:
    assert PortType(lowest=0).convert("0", None, None) == 0


def test_the_summary_tells_what_left_and_what_changed() -> None:
    lines = summary_lines(
        Summary(
            "a.zip",
            "127.0.0.1:1",
            members=10,
            sent=4,
            sent_bytes=1234,
            source_bytes=12340,
            changed=3,
            reports=["vendor: saved much"],
        )
    )
    text = "\n".join(lines)
    for part in ("10 members", "4 sent", "6 kept back", "1,234 of 12,340", "10.0%", "saved much"):
        assert part in text
    assert "changed: 3 members; the other 7" in text


def test_a_summary_without_a_download_claims_no_change() -> None:
    lines = summary_lines(Summary("a.zip", "127.0.0.1:1"))
    assert not any(line.startswith("changed") for line in lines)


def test_a_closed_output_is_no_bug() -> None:
    """``socketpool --help | head -1``."""
    code = "from socketpool.cli.main import main; import sys; sys.argv[1:] = ['--help']; main()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.returncode == 1
    assert b"bug" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_ctrl_c_at_any_moment_of_a_command_is_130() -> None:
    code = (
        "import os, signal, click; from socketpool.cli.base import run\n"
        "@click.command()\n"
        "def command(): os.kill(os.getpid(), signal.SIGINT)\n"
        "run(command, 'cmd')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 130
    assert done.stderr.strip().endswith(b"cmd: interrupted")
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_a_log_line_is_one_json_object_whatever_is_logged() -> None:
    record = logging.makeLogRecord(
        {"name": "n", "levelname": "INFO", "msg": "a\n%s", "args": ("b",), "lease": object()}
    )
    line = JsonFormatter().format(record)
    entry = json.loads(line)
    assert "\n" not in line
    assert (entry["event"], entry["level"], entry["logger"]) == ("a\nb", "info", "n")
    assert entry["lease"].startswith("<object")
