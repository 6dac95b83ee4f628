"""The engine on archives in memory, in a folder of its own."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from socketpool.archive.merge import merge
from socketpool.archive.plan import make_plan
from socketpool.archive.policy import Policy
from socketpool.archive.sources import ZipSource
from socketpool.system.filerange import FileRange
from tests.support.archives import canonical

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.archive.implode import Imploded
    from socketpool.archive.manifest import Manifest
    from socketpool.archive.plan import Plan
    from socketpool.archive.report import MergeReport

EVERYTHING = Policy(("*",), ())


def stream(imploded: Imploded) -> bytes:
    """All segments, read as a sender would."""
    import os

    parts = []
    for segment in imploded.segments():
        if isinstance(segment, FileRange):
            parts.append(os.pread(segment.fd, segment.length, segment.offset))
        else:
            parts.append(segment)
    return b"".join(parts)


class Engine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.original = folder / "original.zip"
        self.returned = folder / "returned.zip"
        self.report: MergeReport | None = None

    def plan(self, archive: bytes, policy: Policy = EVERYTHING) -> Plan:
        self.original.write_bytes(archive)
        with ZipSource(self.original) as source:
            plan = make_plan(source, policy)
            list(plan)
            return plan

    def implode(
        self, archive: bytes, policy: Policy = EVERYTHING, *, verify: bool = False
    ) -> tuple[bytes, Manifest]:
        self.original.write_bytes(archive)
        with ZipSource(self.original) as source:
            imploded = source.implode(make_plan(source, policy), verify=verify)
            data = stream(imploded)
            assert len(data) == imploded.size
            assert stream(imploded) == data
            return data, imploded.manifest

    def merge(
        self, archive: bytes, returned: bytes | dict[bytes, bytes], **options: object
    ) -> bytes:
        """The merged archive; checks that a refusal leaves the original and the folder alone."""
        _, manifest = self.implode(archive)
        return self.merge_with(archive, returned, manifest, **options)

    def merge_with(
        self,
        archive: bytes,
        returned: bytes | dict[bytes, bytes],
        manifest: Manifest,
        **options: object,
    ) -> bytes:
        if isinstance(returned, dict):
            returned = canonical(returned)
        self.returned.write_bytes(returned)
        before = sorted(self.folder.iterdir())
        try:
            self.report = merge(self.original, self.returned, manifest, **options)  # type: ignore[arg-type]
        except BaseException:
            assert self.original.read_bytes() == archive
            assert sorted(self.folder.iterdir()) == before
            raise
        return self.original.read_bytes()

    def manifest(self, archive: bytes, ordinals: list[int]) -> Manifest:
        """A manifest of chosen members, whatever a policy would say."""
        self.original.write_bytes(archive)
        with ZipSource(self.original) as source:
            from socketpool.archive.implode import implode_zip

            return implode_zip(source.archive, array("L", ordinals)).manifest
