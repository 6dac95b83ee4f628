"""What was done with one file, for people and programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class SentLine(NamedTuple):
    """A member that was sent."""

    name: str
    bytes: int
    sha256: str
    changed: bool


@dataclass(slots=True)
class Summary:
    """What a run did with a file; None where no step of the run could know."""

    file: str
    server: str
    lease: str = ""
    members: int | None = None
    sent: int | None = None
    sent_bytes: int | None = None
    source_bytes: int | None = None
    policy: str = ""
    """The policy that was applied: a file, or the shipped one."""
    changed: int | None = None
    result: str = ""
    backup: str = ""
    manifest: str = ""
    receipt: str = ""
    sent_members: list[SentLine] = field(default_factory=list)
    """What the receipt says of each member that was sent; empty without one."""
    seconds: float = 0.0
    reports: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int | None:
        """Members that stayed at home."""
        return None if self.members is None or self.sent is None else self.members - self.sent

    def fields(self) -> dict[str, Any]:
        """The summary as values that JSON can represent."""
        told = asdict(self) | {"kept": self.kept, "seconds": round(self.seconds, 3)}
        del told["sent_members"]  # there may be a hundred thousand; the receipt has them
        return told
