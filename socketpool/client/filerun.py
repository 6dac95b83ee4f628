"""One file's way through the services of a lease and back.

The original is replaced after everything was verified; before that nothing touches it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from socketpool.archive.commit import check_backup_suffix
from socketpool.archive.plan import check_not_empty
from socketpool.archive.policy import find_policy
from socketpool.archive.receipt import build_receipt, write_receipt
from socketpool.archive.refusals import SignedArchive, SourceUnreadable
from socketpool.archive.sources import ZipSource, check_mergeable, merge_into
from socketpool.client.attempts import run_step
from socketpool.client.reporter import Reporter, Step
from socketpool.client.serviceclients import (
    DownloadClient,
    ServiceClient,
    UploadClient,
    VendorClient,
)
from socketpool.client.summary import SentLine, Summary
from socketpool.config.values import Address
from socketpool.core.servicekinds import ServiceKind
from socketpool.defaults import WAIT_SECONDS
from socketpool.errors import ArchiveError, SocketpoolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from socketpool.archive.directory import DirectorySource
    from socketpool.archive.limits import Limits
    from socketpool.archive.manifest import Manifest
    from socketpool.archive.plan import Hook, Plan
    from socketpool.archive.report import MergeReport
    from socketpool.client.answers import ClientLease, LeasedService
    from socketpool.client.dial import Dial
    from socketpool.client.jobs import Job


class ReceiptFailed(SocketpoolError):
    """The run succeeded, but its receipt could not be written."""

    code = "receipt-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the user wants it done: the options of the commands."""

    wait: float = WAIT_SECONDS
    policy: Path | None = None
    hook: Hook | None = None
    vendor_client: Callable[[], VendorClient] = VendorClient
    """Makes the client of each vendor step; a subclass talks with a vendor of its own."""
    output: Path | None = None
    backup: str = ""
    receipt: Path | None = None
    allow_signed: bool = False
    allow_empty: bool = False


class FileRun:
    """What is done with one file."""

    def __init__(
        self,
        job: Job,
        kinds: Mapping[str, ServiceKind | None],
        server: str,
        options: RunOptions,
        reporter: Reporter,
        dial: Dial,
        scratch: Path,
    ) -> None:
        self._path, self._services = job
        self._kinds = kinds
        self._options = options
        self._reporter = reporter
        self._dial = dial
        self._scratch = scratch
        self._uploader = UploadClient(options.hook)
        self._report: MergeReport | None = None
        self.summary = Summary(str(self._path), server)

    def prepare(self, source: ZipSource | DirectorySource, *, returns: bool) -> None:
        """Judge the file, which must stay open until `run` has returned; raises ArchiveError.

        ``returns`` says that something will be merged into it.
        """
        clock = time.monotonic()
        if returns:
            self._check_signature(source)
        policy = find_policy(self._path, self._options.policy)
        self._limits = policy.limits
        self._plan = self._uploader.prepare(source, policy)
        self.summary.policy = policy.source
        if not self._options.allow_empty:
            check_not_empty(self._plan, self._path.name)
        if returns:
            check_mergeable(self._path, self._plan, output=self._options.output)
            if self._options.backup:
                check_backup_suffix(self._options.backup)
        note_plan(self.summary, self._plan, source, self._uploader)
        self.summary.seconds = time.monotonic() - clock

    def run(self, lease: ClientLease, check_lease: Callable[[], object]) -> None:
        """Run every step; ``check_lease`` raises when the lease has ended."""
        started, clock = datetime.now(UTC), time.monotonic()
        self.summary.lease = lease.id
        for name in self._services:
            service = lease[name]
            returned = self._scratch / "returned.zip"
            service_client: ServiceClient
            kind = self._kinds[name]
            match kind:
                case ServiceKind.UPLOAD:
                    service_client = self._uploader
                case ServiceKind.VENDOR:
                    service_client = self._options.vendor_client()
                case _:
                    service_client = DownloadClient(returned)
            service_client.assign(service, lease.token, self._dial, self._reporter.progress)
            run_service_client(
                service_client,
                service,
                self.summary,
                self._reporter,
                check_lease,
                must_answer=False,
            )
            if kind is not None and kind.facts.gives_archive:
                self._report = merge_returned(
                    self._path,
                    returned,
                    self._uploader.imploded.manifest,
                    self._options,
                    self.summary,
                    limits=self._limits,
                )
        self._write_receipt(started)
        self.summary.seconds += time.monotonic() - clock

    def _check_signature(self, source: ZipSource | DirectorySource) -> None:
        """Refuse now, rather than after the work was done."""
        signature = source.signature()
        if signature and not self._options.allow_signed:
            raise SignedArchive(
                f"the archive is signed ({signature}), and a change would break its signature",
                hint="use --allow-signed to change it all the same; nothing was sent",
            )

    def _write_receipt(self, started: datetime) -> None:
        if self._options.receipt is None:
            return
        receipt = build_receipt(
            source=self._path,
            plan=self._plan,
            policy=self.summary.policy,
            sent=self._uploader.imploded.digests(),
            report=self._report,
            lease=self.summary.lease,
            server=self.summary.server,
            started=started,
            finished=datetime.now(UTC),
        )
        changed = {member["name"] for member in receipt.get("changed", [])}
        self.summary.sent_members = [
            SentLine(m["name"], m["bytes"], m["sha256"], m["name"] in changed)
            for m in receipt["sent"]
        ]
        self.summary.receipt = str(self._options.receipt)
        try:
            write_receipt(self._options.receipt, receipt)
        except ArchiveError as error:
            raise ReceiptFailed(
                f"the run is complete, but its receipt can't be written: {error.message}",
                hint="don't repeat the run for it; the archive is as it should be",
            ) from error


def run_service_client(
    service_client: ServiceClient,
    service: LeasedService,
    summary: Summary,
    reporter: Reporter,
    check_lease: Callable[[], object],
    *,
    must_answer: bool,
) -> None:
    """Run the client portion of a service, told to the reporter; see `run_step`."""
    address = str(Address(host=service.host, port=service.port))
    reporter.step(Step(summary.file, service.service, service.client, address))
    run_step(service_client, check_lease=check_lease, note=reporter.note, must_answer=must_answer)
    reporter.step_done()
    summary.reports += [
        f"{service.service}: {line}"
        for line in _lines(service_client.lines) + _lines(service_client.detail.get("report"))
    ]


def _lines(report: object) -> list[str]:
    """What a service reported, each on a line of its own."""
    lines = report if isinstance(report, list) else []
    return [" ".join(str(line).split()) for line in lines]


def note_plan(
    summary: Summary, plan: Plan, source: ZipSource | DirectorySource, uploader: UploadClient
) -> None:
    """Add the members that are sent to the summary."""
    summary.members, summary.sent = len(plan), len(plan.sent)
    summary.sent_bytes = uploader.imploded.size
    if isinstance(source, ZipSource):
        summary.source_bytes = source.archive.size
    else:
        summary.source_bytes = plan.sent_bytes + plan.kept_bytes


def merge_returned(
    path: Path,
    returned: Path,
    manifest: Manifest,
    options: RunOptions,
    summary: Summary,
    *,
    limits: Limits,
) -> MergeReport:
    """Put the members that came back into the file; raises ArchiveError."""
    report = merge_into(
        path,
        returned,
        manifest,
        output=options.output,
        backup=options.backup,
        limits=limits,
        allow_signed=options.allow_signed,
        digests=options.receipt is not None,
    )
    summary.changed = len(report.changed)
    summary.result = str(report.path)
    summary.backup = str(report.backup or "")
    return report


def check_receipt_place(receipt: Path | None) -> None:
    """Raise SourceUnreadable now if the receipt could not be written after the run."""
    if receipt is not None and not receipt.absolute().parent.is_dir():
        raise SourceUnreadable(
            f"the receipt can't be written: {receipt.parent} is not a folder",
            hint="name another --receipt file; nothing was sent",
        )
