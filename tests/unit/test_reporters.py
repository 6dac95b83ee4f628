"""What a run shows: bars, lines or JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from socketpool.cli import bars
from socketpool.cli.bars import BarReporter
from socketpool.cli.progress import make_reporter
from socketpool.cli.reporters import JsonReporter, PlainReporter
from socketpool.cli.summarytext import summary_lines
from socketpool.client.reporter import Reporter, Step
from socketpool.client.summary import Summary
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import UsageError

UPLOAD = Step("a.zip", "upload", ServiceKind.UPLOAD, "127.0.0.1:21000")
VENDOR = Step("a.zip", "shout", ServiceKind.VENDOR, "127.0.0.1:21010")
SUMMARY = Summary("a.zip", "127.0.0.1:1", lease="l", members=3, sent=1, changed=1)


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert err == ""
    return [json.loads(line) for line in out.splitlines()]


def test_json_tells_every_event_as_an_object_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter()
    reporter.step(UPLOAD)
    reporter.note("cut;\ntrying again")
    reporter.progress(5, 5, "")
    reporter.step_done()
    reporter.summary(SUMMARY)
    events = told(capsys)
    assert [e["event"] for e in events] == [*("step", "note", "progress", "step-done", "summary")]
    assert events[0]["address"] == "127.0.0.1:21000"
    assert events[4]["kept"] == 2


def test_json_tells_of_progress_four_times_a_second_at_most_and_of_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    reporter = JsonReporter(lambda: now)
    reporter.step(UPLOAD)
    for number in range(1, 1001):
        now += 0.002
        reporter.progress(number, 1000, "")
    progress = [e["done"] for e in told(capsys) if e["event"] == "progress"]
    assert progress[-1] == 1000
    assert 8 <= len(progress) <= 10


def test_a_log_gets_warnings_and_the_summary_alone(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.step(UPLOAD)
    reporter.progress(1, 2, "x")
    reporter.step_done()
    reporter.note("cut\x1b[2J")
    reporter.summary(SUMMARY)
    out, err = capsys.readouterr()
    assert err == "cut\N{REPLACEMENT CHARACTER}[2J\n"
    assert out.splitlines() == summary_lines(SUMMARY)


def drawn(monkeypatch: pytest.MonkeyPatch, width: int = 80) -> tuple[BarReporter, io.StringIO]:
    """A reporter on a terminal of so many columns."""
    screen = io.StringIO()

    def console(*, stderr: bool, highlight: bool) -> Console:
        assert stderr
        return Console(file=screen, force_terminal=True, width=width, color_system=None)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(bars, "Console", console)
    return BarReporter(), screen


def last_frame(screen: io.StringIO) -> str:
    return screen.getvalue().rpartition("\x1b[2K")[2]


@pytest.mark.parametrize("width", [80, 120, 40])
def test_bars_fit_the_terminal_and_show_bytes_members_and_what_is_done(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    reporter, screen = drawn(monkeypatch, width)
    reporter.step(UPLOAD)
    reporter.progress(1_500_000, 3_000_000, "")
    reporter.step_done()
    reporter.step(VENDOR)
    reporter.progress(12, 34, "a/very/long/name/that/does/not/fit/in/there/index.html\x1b[2J")
    reporter.close()
    frame = last_frame(screen)
    assert all(len(line) <= width for line in frame.splitlines())
    if width >= 80:
        assert "3.0/3.0 MB" in screen.getvalue()
        assert "12/34" in frame
        assert "index.html" in frame
    assert "\x1b[2J" not in screen.getvalue()


def test_a_step_that_told_nothing_ends_with_a_full_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter, screen = drawn(monkeypatch)
    reporter.step(VENDOR)
    reporter.step_done()
    reporter.close()
    assert "done" in last_frame(screen)


def test_each_file_has_bars_of_its_own_and_its_name_above(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter, screen = drawn(monkeypatch)
    for name in ("one.zip", "two.zip"):
        reporter.step(Step(name, "upload", ServiceKind.UPLOAD, "127.0.0.1:1"))
        reporter.step_done()
        reporter.summary(Summary(name, "127.0.0.1:1"))
    reporter.close()
    assert screen.getvalue().index("one.zip") < screen.getvalue().index("two.zip")
    assert capsys.readouterr().out.count(".zip") == 2


def test_the_reporter_fits_what_was_asked_for() -> None:
    assert type(make_reporter(quiet=False, as_json=False)) is PlainReporter
    assert type(make_reporter(quiet=True, as_json=False)) is Reporter
    assert type(make_reporter(quiet=False, as_json=True)) is JsonReporter
    with pytest.raises(UsageError, match="exclude"):
        make_reporter(quiet=True, as_json=True)


def test_a_summary_without_an_upload_claims_nothing_about_members() -> None:
    text = "\n".join(summary_lines(Summary("a.zip", "127.0.0.1:1", changed=2)))
    assert "changed: 2 members; all others are as they were" in text
    assert "None" not in text
    assert "left this machine" not in text
    assert "lease" not in text
