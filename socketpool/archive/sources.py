"""The front door: a zip or a directory, opened, planned, imploded and merged in the same way.

with open_source(path) as source:
    plan = make_plan(source, find_policy(path))
    imploded = implode(source, plan)
    ...send imploded.segments(), receive a file...
report = merge_into(path, received, imploded.manifest)
"""

from __future__ import annotations

import os
import stat
from array import array
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.closing import Closes
from socketpool.archive.commit import Replacement, open_folder, sweep
from socketpool.archive.directory import DirectorySource, merge_directory
from socketpool.archive.implode import Imploded, ImplodedZip, copy_segments, implode_zip
from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.manifest import ZIP
from socketpool.archive.merge import merge
from socketpool.archive.names import is_certain, is_unsafe, sent_name, unicode_path
from socketpool.archive.reader import Archive
from socketpool.archive.signatures import signature
from socketpool.archive.targets import check_place, check_room, check_target
from socketpool.archive.transaction import check_replaceable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.archive.manifest import Manifest
    from socketpool.archive.plan import Plan
    from socketpool.archive.report import MergeReport

_JUDGED = Struct("<8x2H8x2L2H6xL")
_UNICODE_PATH = r.UNICODE_PATH_ID.to_bytes(2, "little")
_METHODS = {
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "XZ",
    98: "PPMd",
    99: "AES encryption",
}
_PLAIN_FILE = (0, stat.S_IFREG >> 12)


class ZipSource(Closes):
    """A zip as a source of members."""

    kind = ZIP

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.archive = Archive.open(path, limits)
        self._twice = self.archive.duplicates()
        self._places = array("Q", bytes(8 * len(self.archive)))

    def offers(self) -> Iterator[tuple[bytes, int, int, str, bytes, bool]]:
        """Every member in the order of the directory, and why it can't be sent, if so."""
        archive, twice = self.archive, self._twice
        directory = archive.directory
        for ordinal, start in enumerate(archive.starts):
            judged = _JUDGED.unpack_from(directory, start)
            flags, method, packed, size, length, extra_length, external = judged
            end = start + 46 + length
            name = directory[start + 46 : end]
            if r.M32 in (packed, size):
                member = archive.member(ordinal)
                packed, size = member.packed, member.size
            plain = (
                method in (r.STORED, r.DEFLATED)
                and not flags & (r.ENCRYPTED | r.PATCHED)
                and external >> 28 in _PLAIN_FILE
                and name[-1:] != b"/"
                and ordinal not in twice
                and not is_unsafe(sent_name(name))
            )
            other, known = b"", False
            if not plain:
                why = self._why_never(ordinal)
            else:
                why = ""
                if directory.find(_UNICODE_PATH, end, end + extra_length) >= 0:
                    other, known = unicode_path(directory[end : end + extra_length], name)
                    why = "unsafe name" if other and is_unsafe(sent_name(other)) else ""
                known = known or (flags & r.UTF8 != 0 and is_certain(name))
            yield name, size, packed, why, other, known

    def vet(self, ordinal: int) -> None:
        """Check a member's local header; raises what :func:`implode_zip` would."""
        self._places[ordinal] = self.archive.place(ordinal)

    def signature(self) -> str:
        """What signs the archive; empty when nothing does."""
        return signature(self.archive)

    def implode(self, plan: Plan, *, verify: bool = False) -> ImplodedZip:
        """Prepare the members that leave; the source must stay open while they are sent."""
        return implode_zip(self.archive, plan.sent, verify=verify, places=self._places)

    def close(self) -> None:
        """Close the file."""
        self.archive.close()

    def _why_never(self, ordinal: int) -> str:
        member = self.archive.member(ordinal)
        reasons = (
            (member.is_symlink, "symbolic link"),
            (member.is_directory, "folder"),
            (member.is_special, "special file"),
            (member.is_encrypted, "encrypted"),
            (ordinal in self._twice, "name appears twice"),
            (is_unsafe(sent_name(member.name)), "unsafe name"),
            (member.flags & r.PATCHED, "patch data"),
        )
        for applies, reason in reasons:
            if applies:
                return reason
        known = _METHODS.get(member.method)
        return f"packed with {known}" if known else f"packed with method {member.method}"


def open_source(path: Path, limits: Limits = DEFAULT_LIMITS) -> ZipSource | DirectorySource:
    """Open what ``path`` is: a directory, or else a zip."""
    return DirectorySource(path) if path.is_dir() else ZipSource(path, limits)


def implode(source: ZipSource | DirectorySource, plan: Plan, *, verify: bool = False) -> Imploded:
    """What leaves, ready to be sent; see :func:`socketpool.archive.implode.implode_zip`."""
    return source.implode(plan, verify=verify)


def write_imploded(imploded: Imploded, path: Path) -> None:
    """Write what leaves to a file, which is replaced whole or not at all."""
    target = Path(os.path.realpath(path))
    folder = open_folder(target.parent)
    try:
        sweep(folder)
        with Replacement(folder, os.fsencode(target.name)) as out:
            out.run(lambda: copy_segments(imploded, out.fd))
            out.commit()
    finally:
        os.close(folder)


def merge_into(
    original: Path,
    returned: Path,
    manifest: Manifest,
    *,
    output: Path | None = None,
    backup: str = "",
    limits: Limits = DEFAULT_LIMITS,
    allow_signed: bool = False,
    digests: bool = False,
) -> MergeReport:
    """Merge into a zip or a directory; see :func:`socketpool.archive.merge.merge`."""
    if not original.is_dir():
        return merge(
            original,
            returned,
            manifest,
            output=output,
            backup=backup,
            limits=limits,
            allow_signed=allow_signed,
            digests=digests,
        )
    return merge_directory(
        original,
        returned,
        manifest,
        output=output,
        backup=backup,
        limits=limits,
        digests=digests,
    )


def check_mergeable(path: Path, plan: Plan, *, output: Path | None = None) -> None:
    """Refuse before anything is sent what a merge into ``path`` or ``output`` would refuse.

    Read-only files and folders, files of other users, a place that doesn't exist, a disk that is
    full.  Raises :class:`~socketpool.errors.ArchiveError`.
    """
    if output is not None:
        check_place(output, path)
    elif not path.is_dir():
        check_target(Path(os.path.realpath(path)))
    else:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for each in plan:
                if each.send:
                    check_replaceable(folder, each.name)
        finally:
            os.close(folder)
    room = plan.sent_bytes if path.is_dir() and output is None else _size(path, plan)
    check_room(output.absolute().parent if output is not None else path, room)


def _size(path: Path, plan: Plan) -> int:
    return plan.sent_bytes + plan.kept_bytes if path.is_dir() else path.stat().st_size
