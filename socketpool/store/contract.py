"""The contract of a lease store.

The pool server grants from memory; the store is what it can rely on after a restart.  A backend
implements the three methods; each is called from one worker thread, never concurrently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from socketpool.core.records import Grant


class LeaseRecord(NamedTuple):
    """A live lease as it is kept.

    ``created`` is wall-clock time (seconds since the epoch): the only clock that two runs of the
    server share.  It bounds the lease's age after a restart and is shown to users.
    """

    id: str
    generation: int
    client: str
    key: str
    ttl: float
    created: float
    grants: tuple[Grant, ...]


class Save(NamedTuple):
    """Keep this lease."""

    record: LeaseRecord


class Forget(NamedTuple):
    """The lease has ended."""

    lease_id: str


Change = Save | Forget


class LeaseStore(Protocol):
    """Where live leases are kept."""

    def load(self) -> tuple[list[LeaseRecord], int]:
        """All live leases, and the highest generation ever saved.

        Raises :class:`~socketpool.errors.StoreError`; the server then does not start, since it
        can't know what is leased.
        """
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes durable in this order, or none.  When it returns they survive a crash
        of the machine.  Raises :class:`~socketpool.errors.StoreError`; the leases concerned are
        then not granted.
        """
        ...

    def close(self) -> None:
        """Give up the files."""
        ...
