"""What a channel has received and nobody has read yet.

It takes the place of paramiko's own buffer, which copies all that is left at each read, and each
packet twice.  Here packets stay as they were decrypted until somebody wants them.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from paramiko.buffered_pipe import PipeTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Deliver = Callable[[Sequence[memoryview]], int]

SMALL = 4096
"""Packets below this are put together: each by itself would cost more memory than it holds."""
MAX_PIECES = 512
"""Of one batch; below IOV_MAX, so that a system call takes all of them."""

DELIVERED = 1 << 20
"""After so many bytes that were passed on, `read` returns: the host is to be told of them."""


class Batch:
    """Pieces that follow each other; their length is that of all their bytes."""

    __slots__ = ("_size", "pieces")

    def __init__(
        self, pieces: Iterable[memoryview | bytearray] = (), *, delivered: int = 0
    ) -> None:
        """With ``delivered``, it also counts bytes that have gone where they belong already."""
        self.pieces = [memoryview(piece) for piece in pieces]
        self._size = sum(map(len, self.pieces)) + delivered

    def __len__(self) -> int:
        return self._size

    def skip(self, count: int) -> None:
        """Drop so many bytes of the pieces from the front."""
        self._size -= count
        done = 0
        while count and count >= len(self.pieces[done]):
            count -= len(self.pieces[done])
            done += 1
        del self.pieces[:done]
        if count:
            self.pieces[0] = self.pieces[0][count:]

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


class Pipe:
    """One thread feeds it, another reads; bounded by the channel's window.

    It has what `paramiko.Channel` uses of a `paramiko.BufferedPipe`.
    """

    def __init__(self) -> None:
        self.in_batches = False
        """Whether `read` returns a `Batch` and not bytes."""
        self._pieces: deque[memoryview | bytearray] = deque()
        self._size = 0
        self._closed = False
        self._changed = threading.Condition(threading.Lock())
        self._deliver: Deliver | None = None
        self._delivered = 0
        self._waiting = False

    def deliver_by(self, deliver: Deliver) -> None:
        """Have the thread that feeds pass on by itself what it can, while another waits in `read`.

        That saves changing threads.  ``deliver`` must not block; it returns how many bytes it took,
        or raises OSError, and then they are for `read`.
        """
        self._deliver = deliver

    def feed(self, data: memoryview) -> None:
        """Add some bytes, which stay as they are."""
        with self._changed:
            last = self._pieces[-1] if self._pieces else None
            if len(data) >= SMALL:
                self._pieces.append(data)
            elif isinstance(last, bytearray) and len(last) < SMALL:
                last += data
            else:
                self._pieces.append(bytearray(data))
            self._size += len(data)

    def wake(self) -> None:
        """Pass on what was fed, or tell who reads."""
        with self._changed:
            if self._deliver is not None and self._waiting:
                batch = Batch(self._take(self._size))
                with suppress(OSError):
                    count = self._deliver(batch.pieces)
                    batch.skip(count)
                    self._delivered += count
                self._pieces.extendleft(reversed(batch.pieces))
                self._size += len(batch)
                if not self._size and self._delivered < DELIVERED:
                    return
            self._changed.notify_all()

    def read(self, size: int, timeout: float | None = None) -> bytes | Batch:
        """At most ``size`` bytes, none at the end; raises PipeTimeout."""
        with self._changed:
            self._waiting = True
            try:
                self._changed.wait_for(self._has_news, timeout)
            finally:
                self._waiting = False
            batch = Batch(self._take(size), delivered=self._delivered)
            self._delivered = 0
            if not batch and not self._closed:
                raise PipeTimeout
        return batch if self.in_batches else bytes(batch)

    def _has_news(self) -> bool:
        return self._size > 0 or self._delivered >= DELIVERED or self._closed

    def _take(self, size: int) -> Iterable[memoryview | bytearray]:
        if self._size <= size and len(self._pieces) <= MAX_PIECES:
            taken, self._pieces, self._size = self._pieces, deque(), 0
            return taken
        some: list[memoryview | bytearray] = []
        while size and self._pieces and len(some) < MAX_PIECES:
            piece = self._pieces.popleft()
            if len(piece) > size:
                # A view can't be added to: what follows goes into a piece of its own.
                view = memoryview(piece)
                piece = view[:size]
                self._pieces.appendleft(view[size:])
            some.append(piece)
            self._size -= len(piece)
            size -= len(piece)
        return some

    def read_ready(self) -> bool:
        """Whether there is something to read."""
        return self._size > 0

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return self._size
