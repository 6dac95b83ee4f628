"""The round trip: lease the services, run the client portion of each, put the archive back.

The original is opened and judged before anything is leased, and replaced after everything was
verified; in between nothing touches it.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.archive.errors import SignedArchive, SourceUnreadable
from socketpool.archive.policy import find_policy
from socketpool.archive.receipt import build_receipt, write_receipt
from socketpool.archive.sources import ZipSource, merge_into, open_source
from socketpool.client.attempts import run_step
from socketpool.client.dial import dial_tcp
from socketpool.client.portions import DownloadClient, Portion, UploadClient, VendorClient
from socketpool.client.renewal import leased
from socketpool.client.reporter import Reporter
from socketpool.client.steps import check_order
from socketpool.config.fields import Address
from socketpool.errors import ArchiveError, PoolUnreachable, SocketpoolError, TimedOut

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from socketpool.archive.directory import DirectorySource
    from socketpool.archive.plan import Hook, Plan
    from socketpool.archive.report import MergeReport
    from socketpool.client.api import ClientLease, Leased
    from socketpool.client.leaser import Leaser


class ReceiptFailed(SocketpoolError):
    """Everything was done but the receipt."""

    code = "receipt-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How the user wants the run: the options of ``socketpool_client``."""

    wait: float = 30.0
    policy: Path | None = None
    hook: Hook | None = None
    output: Path | None = None
    backup: str = ""
    receipt: Path | None = None
    allow_signed: bool = False


@dataclass(slots=True)
class Summary:
    """What a run did, for people and programs."""

    file: str
    server: str
    lease: str = ""
    members: int = 0
    sent: int = 0
    sent_bytes: int = 0
    source_bytes: int = 0
    changed: int | None = None
    result: str = ""
    backup: str = ""
    seconds: float = 0.0
    reports: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Members that stayed at home."""
        return self.members - self.sent


class RoundTrip:
    """One run of ``socketpool_client``."""

    def __init__(
        self,
        client: Leaser,
        path: Path,
        services: Sequence[str],
        wishes: Wishes,
        *,
        reporter: Reporter | None = None,
        dial: Callable[[str, int], socket.socket] = dial_tcp,
    ) -> None:
        self._client = client
        self._path = path
        self._services = list(services)
        self._wishes = wishes
        self._reporter = reporter or Reporter()
        self._dial = dial
        self._uploader = UploadClient(wishes.hook)
        self._report: MergeReport | None = None
        self._summary = Summary(str(path), str(Address(host=client.host, port=client.port)))

    def run(self) -> Summary:
        """Do it; raises any `SocketpoolError`, and then the original is untouched."""
        started, clock = datetime.now(UTC), time.monotonic()
        kinds = self._kinds = self._client.kinds()
        check_order(self._services, kinds)
        _check_receipt_place(self._wishes.receipt)
        with (
            open_source(self._path) as source,
            tempfile.TemporaryDirectory(prefix="socketpool-") as scratch,
        ):
            self._scratch = Path(scratch)
            if "download" in {kinds[name] for name in self._services}:
                self._check_signature(source)
            policy = find_policy(self._path, self._wishes.policy)
            self._limits = policy.limits
            plan = self._uploader.prepare(source, policy)
            self._note_plan(plan, source)
            unique = list(dict.fromkeys(self._services))
            with leased(self._client, unique, wait=self._wishes.wait) as lease:
                self._summary.lease = lease.id
                for name in self._services:
                    self._step(lease, lease.service(name))
            self._write_receipt(plan, started)
        self._summary.seconds = time.monotonic() - clock
        return self._summary

    def _check_signature(self, source: ZipSource | DirectorySource) -> None:
        """Say so now rather than after the work was done."""
        signature = source.signature()
        if signature and not self._wishes.allow_signed:
            raise SignedArchive(
                f"The archive is signed ({signature}), and a change would break its signature.",
                hint="Use --allow-signed to change it all the same. Nothing was sent.",
            )

    def _note_plan(self, plan: Plan, source: ZipSource | DirectorySource) -> None:
        s = self._summary
        s.members, s.sent, s.sent_bytes = len(plan), len(plan.sent), self._uploader.imploded.size
        if isinstance(source, ZipSource):
            s.source_bytes = source.archive.size
        else:
            s.source_bytes = plan.sent_bytes + plan.kept_bytes

    def _step(self, lease: ClientLease, service: Leased) -> None:
        self._reporter.step(service.service, str(Address(host=service.host, port=service.port)))
        returned = self._scratch / "returned.zip"
        portion: Portion
        match self._kinds[service.service]:
            case "upload":
                portion = self._uploader
            case "vendor":
                portion = VendorClient()
            case _:
                portion = DownloadClient(returned)
        portion.assign(service, lease.token, self._dial, self._reporter.progress)
        run_step(
            portion,
            check_lease=lambda: self._check(lease),
            note=self._reporter.note,
        )
        self._summary.reports += [
            f"{service.service}: {line}" for line in _lines(portion.detail.get("report"))
        ]
        if self._kinds[service.service] == "download":
            self._merge(returned)

    def _check(self, lease: ClientLease) -> None:
        """Raise NotAuthorised when the lease has ended; a pool server that is away may be back."""
        with suppress(PoolUnreachable, TimedOut):
            self._client.renew(lease.id)

    def _merge(self, returned: Path) -> None:
        report = self._report = merge_into(
            self._path,
            returned,
            self._uploader.imploded.manifest,
            output=self._wishes.output,
            backup=self._wishes.backup,
            limits=self._limits,
            allow_signed=self._wishes.allow_signed,
            digests=self._wishes.receipt is not None,
        )
        self._summary.changed = len(report.changed)
        self._summary.result = str(report.path)
        self._summary.backup = str(report.backup or "")

    def _write_receipt(self, plan: Plan, started: datetime) -> None:
        if self._wishes.receipt is None:
            return
        receipt = build_receipt(
            source=self._path,
            plan=plan,
            sent=self._uploader.imploded.digests(),
            report=self._report,
            lease=self._summary.lease,
            server=self._summary.server,
            started=started,
            finished=datetime.now(UTC),
        )
        try:
            write_receipt(self._wishes.receipt, receipt)
        except ArchiveError as error:
            raise ReceiptFailed(
                f"The run is complete, but its receipt can't be written: {error.message}",
                hint="Don't repeat the run for it; the archive is as it should be.",
            ) from error


def _lines(report: object) -> list[str]:
    """What a service reported, each on a line of its own."""
    lines = report if isinstance(report, list) else []
    return [" ".join(str(line).split()) for line in lines]


def _check_receipt_place(receipt: Path | None) -> None:
    """Find out before anything is sent."""
    if receipt is not None and not receipt.absolute().parent.is_dir():
        raise SourceUnreadable(
            f"The receipt can't be written: {receipt.parent} is not a folder.",
            hint="Name another --receipt file. Nothing was sent.",
        )
