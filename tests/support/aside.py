"""The other end of a conversation, at work in a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Aside(threading.Thread):
    """The other end at work; `result` gives what it returned, or raises what it raised."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = (function, args, kwargs)
        self._value: Any = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        function, args, kwargs = self._call
        try:
            self._value = function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - raised again by result()
            self._error = error

    def result(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "the other end hangs"
        if self._error is not None:
            raise self._error
        return self._value
