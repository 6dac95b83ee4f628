"""Reporters that print lines: as people read them, or as JSON for programs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from socketpool.cli.base import printable, say, tell
from socketpool.cli.summarytext import summary_lines
from socketpool.client.reporter import Reporter, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.client.summary import Summary

EVENT_SECONDS = 0.25
"""Programs are told of progress no more often."""


class PlainReporter(Reporter):
    """Warnings on stderr, and the summary on stdout."""

    def note(self, text: str) -> None:
        """Show it."""
        say(text)

    def summary(self, summary: Summary) -> None:
        """Print it."""
        for line in summary_lines(summary):
            tell(printable(line))


class JsonReporter(Reporter):
    """Everything as one JSON object a line, on stdout."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._step: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._emit("note", text=text)

    def step(self, step: Step) -> None:
        """See `Reporter.step`."""
        self._step = {"file": step.file, "service": step.service}
        self._next = 0.0
        self._emit("step", **self._step, kind=step.kind, address=step.address)

    def progress(self, done: int, total: int, text: str) -> None:
        """See `Reporter.progress`; the end of a step is always told."""
        now = self._clock()
        if now >= self._next or done >= total:
            self._next = now + EVENT_SECONDS
            self._emit("progress", **self._step, done=done, total=total, text=text)

    def step_done(self) -> None:
        """See `Reporter.step_done`."""
        self._emit("step-done", **self._step)

    def summary(self, summary: Summary) -> None:
        """See `Reporter.summary`."""
        self._emit("summary", **summary.fields())

    def _emit(self, event: str, **fields: Any) -> None:
        tell(json.dumps({"event": event, **fields}))
