"""The round trip: lease the services, run the client portion of each, put the archives back.

Every original is opened and judged before anything is leased.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from socketpool.archive.sources import open_source
from socketpool.client.dial import dial_tcp
from socketpool.client.filerun import FileRun, RunOptions, check_receipt_place
from socketpool.client.jobs import Job
from socketpool.client.renewal import leased
from socketpool.client.reporter import Reporter
from socketpool.client.steps import check_order
from socketpool.client.summary import Summary
from socketpool.config.values import Address
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import PoolUnreachable, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from socketpool.client.dial import Dial
    from socketpool.client.leaser import Leaser

__all__ = ["RoundTrip", "Run", "RunOptions", "Summary"]


class RoundTrip:
    """One file's round trip on a lease of its own."""

    def __init__(
        self,
        client: Leaser,
        path: Path,
        services: Sequence[str],
        options: RunOptions,
        *,
        reporter: Reporter | None = None,
        dial: Dial = dial_tcp,
    ) -> None:
        self._client = client
        self._job = Job(path, tuple(services))
        self._options = options
        self._reporter = reporter or Reporter()
        self._dial = dial

    def run(self) -> Summary:
        """Run it; raises any `SocketpoolError`, and then the original is untouched."""
        run = Run(
            self._client, [self._job], self._options, reporter=self._reporter, dial=self._dial
        )
        run.run(self._client.kinds())
        return run.done[0]


class Run:
    """The round trips of some files, one after the other, on one lease of all their services."""

    def __init__(
        self,
        client: Leaser,
        jobs: Sequence[Job],
        options: RunOptions,
        *,
        reporter: Reporter,
        dial: Dial = dial_tcp,
    ) -> None:
        self._client = client
        self._jobs = jobs
        self._options = options
        self._reporter = reporter
        self._dial = dial
        self.done: list[Summary] = []
        """The files that are finished."""

    def run(self, kinds: Mapping[str, ServiceKind | None]) -> None:
        """Run them, given the kinds of the pool's services; raises the first `SocketpoolError`.

        The files that are `done` by then stay as they are; all others are untouched.
        """
        for job in self._jobs:
            check_order(job.services, kinds)
        check_receipt_place(self._options.receipt)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="socketpool-")))
            file_runs = []
            for job in self._jobs:
                source = open_source(job.path)
                stack.callback(source.close)
                file_run = self._file_run(job, scratch, kinds)
                file_run.prepare(
                    source, returns=ServiceKind.DOWNLOAD in map(kinds.get, job.services)
                )
                file_runs.append(file_run)
            services = list(dict.fromkeys(name for job in self._jobs for name in job.services))
            with leased(self._client, services, wait=self._options.wait) as lease:
                for file_run in file_runs:
                    file_run.run(lease, lambda: self._check(lease.id))
                    self.done.append(file_run.summary)
                    self._reporter.summary(file_run.summary)

    def _file_run(
        self, job: Job, scratch: Path, kinds: Mapping[str, ServiceKind | None]
    ) -> FileRun:
        server = str(Address(host=self._client.host, port=self._client.port))
        return FileRun(job, kinds, server, self._options, self._reporter, self._dial, scratch)

    def _check(self, lease_id: str) -> None:
        """Raise NotAuthorised when the lease has ended; a pool server that is away may be back."""
        with suppress(PoolUnreachable, TimedOut):
            self._client.renew(lease_id)
