"""Merge: changed members go back into the original, where everything else stays byte for byte.

All that can be refused is refused before the original's place is touched, and the place changes
hands in one step (see :mod:`socketpool.archive.commit`).
"""

from __future__ import annotations

import os
import zlib
from array import array
from itertools import islice
from operator import gt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive.central import central_directory, new_ending
from socketpool.archive.commit import (
    Replacement,
    check_backup_suffix,
    check_writable,
    lock,
    open_folder,
    sweep,
)
from socketpool.archive.inflate import check_claims, check_total
from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.manifest import ZIP, changed, check_identity, check_unchanged
from socketpool.archive.matching import Matcher
from socketpool.archive.readback import read_back
from socketpool.archive.reader import Archive
from socketpool.archive.refusals import BadManifest
from socketpool.archive.report import Changes, MergeReport, View
from socketpool.archive.signatures import check_unsigned
from socketpool.archive.splice import splice

if TYPE_CHECKING:
    from socketpool.archive.manifest import Manifest


class _Sorted(NamedTuple):
    """Returned members by what has to be done about them."""

    rows: array[int]
    """Manifest rows whose content is new, in the order of the original file."""
    ordinals: array[int]
    incoming: array[int]
    sizes: array[int]
    crcs: array[int]
    unchanged: array[int]
    """Manifest rows that came back as they were."""


def merge(
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
    """Put the changed members of ``returned`` into ``original``, or into a copy at ``output``.

    A member that comes back with the checksum and size it had counts as unchanged; when all are,
    nothing is written (but ``output`` is).  ``backup`` is a suffix under which the old file is
    kept.  ``limits`` bind what came back.  With ``digests`` the report has each change's SHA-256.
    Raises :class:`~socketpool.errors.ArchiveError` with the original untouched.
    """
    if backup:
        check_backup_suffix(backup)
    place = Path(os.path.realpath(original))
    target = place if output is None else Path(os.path.realpath(output))
    if manifest.kind != ZIP:
        raise BadManifest("The manifest is that of a directory, not of a zip.")
    if not target.exists():
        backup = ""  # there is nothing to keep
    options = _MergeOptions(place, target, backup, digests)
    with Archive.open(place) as old, Archive.open(returned, limits) as new:
        if target == place:
            lock(old)
        check_identity(old, manifest.identity)
        todo = _sort(old, new, manifest)
        changes = Changes(todo.rows, manifest, todo.sizes, todo.crcs)
        if todo.rows and not allow_signed:
            check_unsigned(old)
        needed = bool(todo.rows) or target != place
        kept = _write(old, new, todo, changes, options) if needed else b""
    unchanged = todo.unchanged
    return MergeReport(
        path=target,
        changed=changes.view(),
        unchanged=View(len(unchanged), lambda at: manifest.name(unchanged[at])),
        missing=len(manifest) - len(todo.rows) - len(unchanged),
        written=needed,
        backup=target.with_name(os.fsdecode(kept)) if kept else None,
    )


class _MergeOptions(NamedTuple):
    place: Path
    target: Path
    backup: str
    digests: bool


def _sort(old: Archive, new: Archive, manifest: Manifest) -> _Sorted:
    """Check what every returned member claims, and find those whose content is new."""
    total = 0
    rows, ordinals, incoming = array("I"), array("I"), array("I")
    sizes, crcs, unchanged = array("Q"), array("I"), array("I")
    matcher = Matcher(manifest)
    for member in new:
        row = matcher.row(member.name, member.size)
        if row is None:
            continue
        ordinal, crc, size = manifest.facts(row)
        if member.crc == crc and member.size == size:
            unchanged.append(row)  # its data isn't even looked at
            continue
        check_claims(member, new.limits)
        total += member.size
        if ordinal >= len(old) or old.name(ordinal) != manifest.name(row):
            raise BadManifest("The manifest doesn't fit the archive it names.")
        rows.append(row)
        ordinals.append(ordinal)
        incoming.append(member.ordinal)
        sizes.append(member.size)
        crcs.append(member.crc)
    check_total(total, new.limits)
    places = array("Q", map(old.offsets.__getitem__, ordinals))
    if any(map(gt, places, islice(places, 1, None))):
        order = sorted(range(len(places)), key=places.__getitem__)
        rows, ordinals, incoming, sizes, crcs = (
            array(column.typecode, map(column.__getitem__, order))
            for column in (rows, ordinals, incoming, sizes, crcs)
        )
    return _Sorted(rows, ordinals, incoming, sizes, crcs, unchanged)


def _write(
    old: Archive, new: Archive, todo: _Sorted, changes: Changes, options: _MergeOptions
) -> bytes:
    """Make the merged archive, read it back, and put it in its place; the backup's name."""
    target = options.target
    folder = open_folder(target.parent)
    try:
        sweep(folder)
        with Replacement(folder, os.fsencode(target.name)) as out:
            if target == options.place:
                check_writable(target)
                out.preserve(old.fd)
            else:
                out.adopt_mode(old.fd)
            done = splice(old, new, todo.ordinals, todo.incoming, out)
            directory, checksum = out.position, 0
            for piece in central_directory(old, new, done):
                checksum = zlib.crc32(piece, checksum)
                out.write(piece)
            out.write(new_ending(old, directory, out.position - directory))
            out.flush()
            old.forget_directory()
            on_digest = changes.add_digest if options.digests else None
            read_back(out.fd, checksum, old, new, done, on_digest=on_digest)
            _check_still_there(old, options.place)
            return out.commit(backup=options.backup)
    finally:
        os.close(folder)


def _check_still_there(old: Archive, place: Path) -> None:
    """The last look before the rename: is the path still the file that was read?"""
    check_unchanged(old.fd, old.stat)
    try:
        now = place.stat()
    except OSError as error:
        raise changed() from error
    if (now.st_dev, now.st_ino) != (old.stat.st_dev, old.stat.st_ino):
        raise changed()
