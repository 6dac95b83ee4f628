"""For what is open until it is closed: the ``with`` statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Closes:
    """Something with `close`, which the end of a ``with`` block calls."""

    __slots__ = ()

    def close(self) -> None:
        """Give up what is open; subclasses do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
