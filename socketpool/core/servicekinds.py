"""The kinds of service that a client has a part for, and what each needs and gives.

A service of no kind is a plain program: it is leased and used, and no step of a run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class ServiceKind(StrEnum):
    """What ``client`` in a service.yml may say, in the usual order of a run's steps."""

    UPLOAD = "upload"
    VENDOR = "vendor"
    DOWNLOAD = "download"

    @property
    def facts(self) -> KindFacts:
        """What is known of the kind."""
        return _FACTS[self]


class KindFacts(NamedTuple):
    """What a step of the kind needs and gives."""

    step: str
    """The step in a sentence."""
    needs: ServiceKind | None
    """The kind of a step that must have been done before it."""
    gives_archive: bool
    """Whether the client has members to merge into its archive afterwards."""
    counts_members: bool
    """Whether its progress is told in members; that of the others is in bytes."""
    client_command: str
    """The command that runs the client's part alone."""


_FACTS = {
    ServiceKind.UPLOAD: KindFacts(
        step="an upload",
        needs=None,
        gives_archive=False,
        counts_members=False,
        client_command="uploader_client",
    ),
    ServiceKind.VENDOR: KindFacts(
        step="a vendor step",
        needs=ServiceKind.UPLOAD,
        gives_archive=False,
        counts_members=True,
        client_command="vendor_client",
    ),
    ServiceKind.DOWNLOAD: KindFacts(
        step="a download",
        needs=ServiceKind.VENDOR,
        gives_archive=True,
        counts_members=False,
        client_command="downloader_client",
    ),
}
