"""The steps of a round trip, each run by a command of its own.

The service is one of somebody's lease, or an instance that runs without a pool; either way the
token comes from elsewhere.  Between upload and download the manifest beside the file remembers what
left, so that nothing else is taken back.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.archive.manifest import Manifest
from socketpool.archive.plan import check_not_empty
from socketpool.archive.policy import find_policy
from socketpool.archive.refusals import CommitFailed
from socketpool.archive.sources import open_source
from socketpool.client.answers import LeasedService
from socketpool.client.dial import dial_tcp
from socketpool.client.filerun import RunOptions, merge_returned, note_plan, run_service_client
from socketpool.client.reporter import Reporter
from socketpool.client.serviceclients import DownloadClient, ServiceClient, UploadClient
from socketpool.client.summary import Summary
from socketpool.config.values import Address
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import ArchiveError, NotAuthorised, ServiceFailed, UsageError
from socketpool.protocol.session import STEP_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.client.dial import Dial

MANIFEST_SUFFIX = ".manifest.jsonl"


def manifest_of(path: Path) -> Path:
    """The path of a file's manifest, which lies beside the file."""
    path = path.absolute()
    if not path.name:
        raise UsageError("a file can't be put beside the root of the file system")
    return path.with_name(path.name + MANIFEST_SUFFIX)


class SingleStep:
    """The client portion of one service, on one file."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str,
        path: Path,
        *,
        options: RunOptions | None = None,
        reporter: Reporter | None = None,
        dial: Dial = dial_tcp,
    ) -> None:
        self._place = (host, port)
        self._token = token
        self._path = path
        self._options = options or RunOptions()
        self._reporter = reporter or Reporter()
        self._dial = dial
        self._summary = Summary(str(path), str(Address(host=host, port=port)))
        self._clock = time.monotonic()

    def upload(self) -> Summary:
        """Send what the policy lets out, and write the manifest."""
        manifest = manifest_of(self._path)
        uploader = UploadClient(self._options.hook)
        with open_source(self._path) as source:
            policy = find_policy(self._path, self._options.policy)
            plan = uploader.prepare(source, policy)
            self._summary.policy = policy.source
            if not self._options.allow_empty:
                check_not_empty(plan, self._path.name)
            note_plan(self._summary, plan, source, uploader)
            # Noted first of all, so that nothing leaves whose return would have to be refused.
            with _noted(uploader.imploded.manifest, manifest):
                self._run(uploader, ServiceKind.UPLOAD)
        self._summary.manifest = str(manifest)
        return self._finish()

    def vendor(self) -> Summary:
        """Have what was uploaded processed; each call is a step of its own.

        A step whose end is unknown, because the connection or the command was cut off, is noted
        beside the file: the next call for the same instance of the same lease tries that step
        again, and the vendor's work is not applied twice.
        """
        service_client = self._options.vendor_client()
        with _attempted(service_client, self._path, f"{self._place} {self._token}"):
            self._run(service_client, ServiceKind.VENDOR)
        return self._finish()

    def download(self) -> Summary:
        """Fetch what was processed and merge it; the manifest is used up by that."""
        at = manifest_of(self._path)
        if not at.exists():
            raise ArchiveError(
                f"there is no manifest {at} that tells what was sent of {self._path}",
                hint="uploader_client writes it: run that first; nothing was changed",
            )
        manifest = Manifest.read(at)
        with tempfile.TemporaryDirectory(prefix="socketpool-") as scratch:
            returned = Path(scratch) / "returned.zip"
            self._run(DownloadClient(returned), ServiceKind.DOWNLOAD)
            limits = find_policy(self._path, self._options.policy).limits
            merge_returned(
                self._path, returned, manifest, self._options, self._summary, limits=limits
            )
        if self._options.output is None:
            at.unlink(missing_ok=True)
        return self._finish()

    def _run(self, service_client: ServiceClient, kind: ServiceKind) -> None:
        host, port = self._place
        service = LeasedService(service=kind, host=host, port=port, instance="", client=kind)
        service_client.assign(service, self._token, self._dial, self._reporter.progress)
        run_service_client(
            service_client, service, self._summary, self._reporter, lambda: None, must_answer=True
        )

    def _finish(self) -> Summary:
        self._summary.seconds = time.monotonic() - self._clock
        self._reporter.summary(self._summary)
        return self._summary


def attempt_of(path: Path) -> Path:
    """Where a vendor step of which the end is unknown is noted: beside the file."""
    return path.absolute().with_name(f".{path.absolute().name}.step")


@contextmanager
def _attempted(service_client: ServiceClient, path: Path, place: str) -> Iterator[None]:
    """Give the portion the identity of a noted step of the same place, and note it until it ends.

    Where nothing can be written beside the file, each call is a step of its own.
    """
    note = attempt_of(path)
    place = hashlib.sha256(place.encode()).hexdigest()
    with suppress(OSError, ValueError):
        noted_place, step = note.read_text(encoding="ascii").split()
        if noted_place == place and STEP_ID.fullmatch(step):
            service_client.step_id = step
    with suppress(OSError):
        note.write_text(f"{place} {service_client.step_id}\n", encoding="ascii")
    try:
        yield
    except (ServiceFailed, ArchiveError, NotAuthorised):
        note.unlink(missing_ok=True)  # the step failed, and left nothing
        raise
    except BaseException:
        if not service_client.sessions:
            note.unlink(missing_ok=True)
        raise
    note.unlink(missing_ok=True)


@contextmanager
def _noted(manifest: Manifest, path: Path) -> Iterator[None]:
    """Write the manifest now, raising CommitFailed; put it in place if the block succeeds."""
    part = path.with_name(f".{path.name}.part")
    try:
        if path.is_dir():
            raise CommitFailed(f"{path} is a folder")
        manifest.write(part)
    except CommitFailed as error:
        with suppress(OSError):
            part.unlink()
        raise CommitFailed(
            f"the manifest can't be written beside the archive: {error.message}",
            hint="make room there, or put the archive elsewhere; nothing was sent",
        ) from error
    try:
        yield
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
