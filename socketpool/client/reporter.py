"""Where the round trip tells how far it is; the commands show it, programs may ignore it."""

from __future__ import annotations


class Reporter:
    """Hears of every step.  This one keeps silent; override what is of interest."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def step(self, service: str, address: str) -> None:
        """The client portion of a service begins."""

    def progress(self, done: int, total: int, text: str) -> None:
        """How far the present step is: bytes or members, whatever the step counts in."""

    def close(self) -> None:
        """No more will come."""
