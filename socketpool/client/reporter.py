"""Receives the progress of a run; the commands show it, programs may ignore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socketpool.client.summary import Summary
    from socketpool.core.servicekinds import ServiceKind


@dataclass(frozen=True, slots=True)
class Step:
    """The client portion of one service at work on one file."""

    file: str
    service: str
    kind: ServiceKind | None
    """The kind of service; it decides whether progress counts bytes or members."""
    address: str


class Reporter:
    """Is called for each event of a run, in one thread; override the methods of interest."""

    def note(self, text: str) -> None:
        """A fault occurred, and the run goes on."""

    def step(self, step: Step) -> None:
        """A step begins."""

    def progress(self, done: int, total: int, text: str) -> None:
        """The progress of the current step, in bytes or members."""

    def step_done(self) -> None:
        """The current step has succeeded."""

    def summary(self, summary: Summary) -> None:
        """A file is done."""

    def close(self) -> None:
        """The run is over; no further call follows."""
