"""The round trip: lease the services, run the client portion of each, put the archive back.

The original is opened and judged before anything is leased, and replaced after everything was
verified; in between nothing touches it.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socketpool.archive import basic
from socketpool.client.dial import dial_tcp
from socketpool.client.portions import DownloadClient, Portion, UploadClient, VendorClient
from socketpool.client.renewal import leased
from socketpool.client.reporter import Reporter
from socketpool.client.steps import check_order
from socketpool.config.fields import Address
from socketpool.errors import ArchiveError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from socketpool.client.api import ClientLease, Leased, PoolClient

MAX_RETURNED_BYTES = 16 << 30


@dataclass(slots=True)
class Summary:
    """What a run did, for people and programs."""

    file: str
    server: str
    lease: str = ""
    members: int = 0
    sent: int = 0
    kept: int = 0
    sent_bytes: int = 0
    archive_bytes: int = 0
    changed: int | None = None
    seconds: float = 0.0
    reports: list[str] = field(default_factory=list)


class RoundTrip:
    """One run of ``socketpool_client``."""

    def __init__(
        self,
        client: PoolClient,
        path: Path,
        services: Sequence[str],
        *,
        wait: float,
        reporter: Reporter | None = None,
        dial: Callable[[str, int], socket.socket] = dial_tcp,
    ) -> None:
        self._client = client
        self._path = path
        self._services = list(services)
        self._wait = wait
        self._reporter = reporter or Reporter()
        self._dial = dial
        self._summary = Summary(str(path), str(Address(host=client.host, port=client.port)))

    def run(self) -> Summary:
        """Do it; raises any `SocketpoolError`, and then the original is untouched."""
        started = time.monotonic()
        kinds = {s["service"]: s["client"] for s in self._client.services()}
        check_order(self._services, kinds)
        with tempfile.TemporaryDirectory(prefix="socketpool-") as folder:
            self._scratch = Path(folder)
            self._prepare()
            unique = list(dict.fromkeys(self._services))
            with leased(self._client, unique, wait=self._wait) as lease:
                self._summary.lease = lease.id
                for name in self._services:
                    self._step(lease, lease.service(name))
        self._summary.seconds = time.monotonic() - started
        return self._summary

    def _prepare(self) -> None:
        if not self._path.is_file():
            raise ArchiveError(f"{self._path}: no such file")
        self._out = self._scratch / "out.zip"
        self._sent, kept = basic.implode(self._path, self._out)
        s = self._summary
        s.sent, s.kept, s.members = len(self._sent), kept, len(self._sent) + kept
        s.sent_bytes, s.archive_bytes = self._out.stat().st_size, self._path.stat().st_size

    def _step(self, lease: ClientLease, service: Leased) -> None:
        self._reporter.step(service.service, str(Address(host=service.host, port=service.port)))
        arguments: tuple[Any, ...] = (service, lease.token, self._dial, self._reporter.progress)
        portion: Portion
        returned = self._scratch / "returned.zip"
        match service.client:
            case "upload":
                portion = UploadClient(
                    *arguments, size=self._summary.sent_bytes, chunks=[self._out.read_bytes()]
                )
            case "vendor":
                portion = VendorClient(*arguments)
            case _:
                portion = DownloadClient(*arguments, target=returned, max_size=MAX_RETURNED_BYTES)
        with closing(portion):
            portion.connect()
            portion.transfer()
        self._summary.reports += [str(line) for line in portion.detail.get("report", [])]
        if service.client == "download":
            self._summary.changed, _ = basic.merge(self._path, returned, self._sent)
