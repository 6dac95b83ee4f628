"""download: sends the lease's processed members back."""

from __future__ import annotations

from socketpool.errors import ServiceFailed
from socketpool.rsi import ServiceServer

CHUNK = 256 << 10


class Download(ServiceServer):
    """Sends the archive of changed members, as often as it is asked."""

    def transfer(self) -> None:
        """Send what vendor left."""
        try:
            file = self.workspace.outgoing.open("rb")
        except FileNotFoundError:
            raise ServiceFailed(
                "nothing was processed in this lease", hint="run vendor before download"
            ) from None
        with file:
            size = self.workspace.outgoing.stat().st_size
            self.send_file_block(size, iter(lambda: file.read(CHUNK), b""))
