"""A bar for each step, on a terminal: bytes, rate and time left, or members and what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from socketpool.cli.base import printable
from socketpool.cli.reporters import PlainReporter

if TYPE_CHECKING:
    from socketpool.client.reporter import Step
    from socketpool.client.summary import Summary
    from socketpool.core.servicekinds import ServiceKind

_NAME_WIDTH = 12
_AMOUNT_WIDTH = 15
_TEXT_WIDTH = 28


class BarReporter(PlainReporter):
    """Bars on stderr while a file is worked on; its summary below them, on stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._task = TaskID(0)
        self._file = ""

    def note(self, text: str) -> None:
        """Show it above the bars."""
        self._console.print(printable(text), markup=False)

    def step(self, step: Step) -> None:
        """Begin a bar; the first of a file brings its name."""
        if self._bars is None:
            self._console.print(Text(printable(step.file), style="bold"))
            self._bars = _make_bars(self._console)
            self._bars.start()
        self._task = self._bars.add_task(
            _cut(step.service, _NAME_WIDTH), total=None, text="", kind=step.kind
        )

    def progress(self, done: int, total: int, text: str) -> None:
        """Move the present bar."""
        if self._bars is not None:
            self._bars.update(self._task, completed=done, total=max(total, 1), text=text)

    def step_done(self) -> None:
        """Fill the bar, also of a step that told nothing of its progress."""
        if self._bars is not None:
            total = self._bars.tasks[self._task].total
            self._bars.update(self._task, completed=total or 1, total=total or 1, text="")

    def summary(self, summary: Summary) -> None:
        """Leave the bars as they are and print the summary."""
        self.close()
        super().summary(summary)

    def close(self) -> None:
        """Leave the bars as they are."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _counts_members(task: Task) -> bool:
    kind: ServiceKind | None = task.fields["kind"]
    return kind is not None and kind.facts.counts_members


class _Amount(ProgressColumn):
    """``12.3/45.6 MB`` or ``12/34``."""

    def render(self, task: Task) -> Text:
        if task.total is None or (_counts_members(task) and task.total <= 1):
            return Text("done" if task.finished else "")
        done, total = int(task.completed), int(task.total)
        if _counts_members(task):
            return Text(f"{done:,}/{total:,}")
        unit, suffix = filesize.pick_unit_and_suffix(total, ["B", "kB", "MB", "GB", "TB"], 1000)
        digits = 0 if unit == 1 else 1
        return Text(f"{done / unit:,.{digits}f}/{total / unit:,.{digits}f} {suffix}")


class _Detail(ProgressColumn):
    """Rate and time left, or the vendor's own words."""

    def render(self, task: Task) -> Text:
        if _counts_members(task):
            return Text(_cut_left(task.fields["text"], _TEXT_WIDTH), style="dim")
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        rate = f"{filesize.decimal(int(speed))}/s"
        left = task.time_remaining
        if task.finished or left is None:
            return Text(rate, style="dim")
        minutes, seconds = divmod(int(left), 60)
        return Text(f"{rate}, {minutes}:{seconds:02} left", style="dim")


def _make_bars(console: Console) -> Progress:
    return Progress(
        _Name(table_column=Column(width=_NAME_WIDTH, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        _Amount(table_column=Column(width=_AMOUNT_WIDTH, justify="right", no_wrap=True)),
        _Detail(table_column=Column(width=_TEXT_WIDTH, no_wrap=True)),
        console=console,
        expand=True,
    )


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description)


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _cut_left(text: str, width: int) -> str:
    """The end of a name tells more than its beginning."""
    text = printable(text).replace("\n", " ").replace("\t", " ")
    return text if len(text) <= width else "…" + text[1 - width :]
