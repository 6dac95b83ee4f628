"""Progress on stderr: a bar at a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from socketpool.cli.base import printable, say
from socketpool.client.reporter import Reporter


class LineReporter(Reporter):
    """A line for each step."""

    def note(self, text: str) -> None:
        """Show it."""
        say(text)

    def step(self, service: str, address: str) -> None:
        """Show where it runs."""
        say(f"{service} at {address} …")


class BarReporter(Reporter):
    """A bar for each step."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._progress.start()

    def note(self, text: str) -> None:
        """Show it above the bars."""
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def step(self, service: str, address: str) -> None:
        """Begin a bar."""
        label = escape(printable(f"{service:<10} {address}"))
        self._task = self._progress.add_task(label, total=None, text="")

    def progress(self, done: int, total: int, text: str) -> None:
        """Move the present bar."""
        if self._task is not None:
            shown = escape(printable(text))[-40:]
            self._progress.update(self._task, completed=done, total=max(total, 1), text=shown)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


def make_reporter() -> Reporter:
    """The one that fits where stderr goes."""
    return BarReporter() if sys.stderr.isatty() else LineReporter()
