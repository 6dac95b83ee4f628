"""Which of the pool server's connections stay when there are too many.

A connection belongs to a stranger until it has shown a valid token.  Nobody needs a token to open
one, so strangers never keep anybody out: when there are too many connections, the one that has
been a stranger the longest is closed.  Those that have shown a token have half of the room for
themselves, and are never closed to make room for strangers.
"""

from __future__ import annotations

import resource
from typing import Protocol

MAX_CONNECTIONS = 4096


def max_connections() -> int:
    """How many connections there may be; the other half of the descriptors is for the work."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft // 2)


class Droppable(Protocol):
    """A connection that can be closed at any moment."""

    def is_between_requests(self) -> bool:
        """Whether nothing of a request has arrived that is not answered yet."""

    def drop(self) -> None:
        """Close it at once."""


class Connections:
    """The open connections of one server; ``bound`` limits their number."""

    def __init__(self, bound: int | None = None) -> None:
        self._bound = max_connections() if bound is None else bound
        # In the order in which they came, and in which they showed their token.
        self._strangers: dict[Droppable, None] = {}
        self._known: dict[Droppable, None] = {}

    def add(self, connection: Droppable) -> None:
        """Take in a new one, and close the stranger that came first if that is one too many."""
        self._strangers[connection] = None
        if len(self._strangers) + len(self._known) > self._bound:
            self._drop(self._strangers, next(iter(self._strangers)))

    def admit(self, connection: Droppable) -> None:
        """It has shown a valid token.

        If more than half of the room belongs to such connections, one of them that waits for no
        answer is closed (its client opens another); if all of them wait, the new one is.
        """
        if self._strangers.pop(connection, self) is self:
            return  # closed already
        self._known[connection] = None
        if len(self._known) > max(1, self._bound // 2):
            between = (c for c in self._known if c is not connection and c.is_between_requests())
            self._drop(self._known, next(between, connection))

    def remove(self, connection: Droppable) -> None:
        """It is closed."""
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)

    @staticmethod
    def _drop(those: dict[Droppable, None], connection: Droppable) -> None:
        del those[connection]
        connection.drop()
