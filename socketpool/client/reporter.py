"""Where a run tells how far it is; the commands show it, programs may ignore it."""

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
    """By which it is known whether its progress counts bytes or members."""
    address: str


class Reporter:
    """Hears of everything, in one thread.  This one keeps silent; override what is of interest."""

    def note(self, text: str) -> None:
        """Something that went wrong and was overcome."""

    def step(self, step: Step) -> None:
        """A step begins."""

    def progress(self, done: int, total: int, text: str) -> None:
        """How far the present step is: bytes or members, whatever the step counts in."""

    def step_done(self) -> None:
        """The present step has ended well."""

    def summary(self, summary: Summary) -> None:
        """A file is done."""

    def close(self) -> None:
        """No more will come."""
