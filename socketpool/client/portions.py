"""The client portions of the shipped kinds of service: upload, vendor, download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from socketpool.rsi.blocks import ConnectionCut, send_file_block, write_file_block
from socketpool.rsi.interfaces import TransferInterface, UploaderInterface
from socketpool.rsi.session import await_event, greet

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from socketpool.client.api import Leased

STEP_SECONDS = 660.0
"""The longest silence of a service that is taken for work, a little above a session's own limit."""


class Portion(TransferInterface):
    """One session with one service of a lease."""

    def __init__(
        self,
        leased: Leased,
        token: str,
        dial: Callable[[str, int], socket.socket],
        progress: Callable[[int, int, str], None],
    ) -> None:
        self._leased = leased
        self._token = token
        self._dial = dial
        self._progress = progress
        self._stream: socket.socket | None = None
        self.detail: dict[str, Any] = {}
        """What the service says of its work at the end."""

    def connect(self) -> None:
        """See `TransferInterface.connect`; raises PoolUnreachable or NotAuthorised."""
        self._stream = self._dial(self._leased.host, self._leased.port)
        self._stream.settimeout(STEP_SECONDS)
        greet(self._stream, self._token)

    @property
    def stream(self) -> socket.socket:
        """The open session."""
        if self._stream is None:
            raise ConnectionCut("the session is not open")
        return self._stream

    def finish(self) -> None:
        """Wait for the service's verdict; raises what it says."""
        done = await_event(self.stream, "done", self._on_progress)
        detail = done.get("detail")
        self.detail = detail if isinstance(detail, dict) else {}

    def close(self) -> None:
        """See `TransferInterface.close`."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _on_bytes(self, done: int, total: int) -> None:
        self._progress(done, total, "")

    def _on_progress(self, message: dict[str, Any]) -> None:
        done, total = message.get("done"), message.get("total")
        if isinstance(done, int) and isinstance(total, int):
            self._progress(done, total, str(message.get("text", "")))


class UploadClient(Portion, UploaderInterface):
    """Sends the imploded archive: only the members that may leave."""

    def __init__(self, *args: Any, size: int, chunks: Iterable[bytes]) -> None:
        super().__init__(*args)
        self._size = size
        self._chunks = chunks

    def transfer(self) -> None:
        """Send the archive as one file block."""
        send_file_block(self.stream, self._size, self._chunks, progress=self._on_bytes)
        self.finish()


class VendorClient(Portion):
    """Has the vendor's code run, and shows its progress."""

    def transfer(self) -> None:
        """Wait until it is done."""
        self.finish()


class DownloadClient(Portion):
    """Fetches the processed members."""

    def __init__(self, *args: Any, target: Path, max_size: int) -> None:
        super().__init__(*args)
        self._target = target
        self._max_size = max_size

    def transfer(self) -> None:
        """Receive the archive of changed members."""
        write_file_block(
            self.stream, self._target, max_size=self._max_size, progress=self._on_bytes
        )
        self.finish()
