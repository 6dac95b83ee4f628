"""download: sends the lease's processed members back."""

from __future__ import annotations

from socketpool.errors import ServiceFailed
from socketpool.rsi import ServiceServer


class Download(ServiceServer):
    """Sends the archive of changed members, as often as it is asked."""

    def transfer(self) -> None:
        """Send what vendor left."""
        outgoing = self.workspace.outgoing
        if outgoing is None:
            raise ServiceFailed(
                "nothing was processed in this lease", hint="run vendor before download"
            )
        self.send_file_block(outgoing)
