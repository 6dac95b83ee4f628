"""A directory instead of a zip: the same plan, implode and merge over files.

Files are opened from the root folder by folder and no symlink on the way is followed, so nothing
outside can be read or written.  A merge checks everything that came back first, stages the changed
files and replaces all of them or none (see :mod:`socketpool.archive.transaction`).
"""

from __future__ import annotations

import fcntl
import functools
import os
import tempfile
import zlib
from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive.closing import Closes
from socketpool.archive.commit import check_backup_suffix
from socketpool.archive.foldercopy import FolderCopy
from socketpool.archive.inflate import check_claims, check_total, chunks, verify
from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.manifest import DIRECTORY, ArchiveIdentity, Manifest
from socketpool.archive.matching import Matcher
from socketpool.archive.names import is_unsafe, is_utf8, show
from socketpool.archive.opening import FOLDER_FLAGS, open_file
from socketpool.archive.plan import UNREADABLE
from socketpool.archive.reader import Archive
from socketpool.archive.receipt import digest_members
from socketpool.archive.refusals import ArchiveBusy, ArchiveChanged, BadManifest
from socketpool.archive.report import Changes, MergeReport, View
from socketpool.archive.transaction import (
    OURS,
    FileChange,
    Transaction,
    check_replaceable,
    is_interrupted,
    recover,
    settle,
)
from socketpool.archive.writer import CanonicalWriter, unreadable
from socketpool.errors import ArchiveError
from socketpool.system.filerange import FileRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.archive.commit import Replacement
    from socketpool.archive.plan import Plan
    from socketpool.archive.receipt import SentMember

_CHUNK = 1 << 18


class DirectorySource(Closes):
    """A directory tree as a source of members; listed once, when opened."""

    kind = DIRECTORY

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(os.fsencode(path), error) from error
        try:
            if is_interrupted(self.fd):
                with DirectoryLock(path):
                    settle(self.fd)
            self._found = sorted(_walk(self.fd))
        except ArchiveError:
            os.close(self.fd)
            raise
        except OSError as error:
            os.close(self.fd)
            raise unreadable(os.fsencode(path), error) from error
        self._files = ExitStack()

    def offers(self) -> Iterator[tuple[bytes, int, int, str, bytes, bool]]:
        """Every file and link below the directory, by name."""
        for name, size, never in self._found:
            yield name, size, size, never, b"", False

    def vet(self, ordinal: int) -> None:
        """Files have no second description that could differ."""

    def signature(self) -> str:
        """Directories are never signed."""
        return ""

    def implode(self, plan: Plan, *, verify: bool = False) -> ImplodedDirectory:  # noqa: ARG002
        """Pack what leaves into an unnamed temporary file; content is read, so always verified."""
        # Closed with the source: what was packed is of use as long as a source is.
        file = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        files = [(at, self._found[at][0]) for at in plan.sent]
        return ImplodedDirectory(self.fd, files, file.fileno())

    def close(self) -> None:
        """Close the directory and what was packed from it."""
        self._files.close()
        os.close(self.fd)


class ImplodedDirectory:
    """A canonical archive of files, in a temporary file that goes with their source."""

    def __init__(self, root: int, files: list[tuple[int, bytes]], packed: int) -> None:
        self.manifest = Manifest(DIRECTORY, ArchiveIdentity())
        self._packed = packed
        writer = CanonicalWriter(packed)
        for ordinal, name in files:
            fd = open_file(root, name)
            try:
                written = writer.add(name, utf8=is_utf8(name), source=fd)
            finally:
                os.close(fd)
            self.manifest.add(ordinal, name, written.crc, written.size)
        self.size = writer.finish()

    def segments(self) -> Iterator[bytes | FileRange]:
        """The temporary file, whole."""
        yield FileRange(self._packed, 0, self.size)

    def digests(self) -> Iterator[SentMember]:
        """SHA-256 of what leaves, for the receipt."""
        with Archive(os.dup(self._packed)) as archive:
            yield from digest_members(archive, array("I", range(len(archive))))


class _Change(NamedTuple):
    row: int
    name: bytes
    incoming: int


def merge_directory(
    root: Path,
    returned: Path,
    manifest: Manifest,
    *,
    output: Path | None = None,
    backup: str = "",
    limits: Limits = DEFAULT_LIMITS,
    digests: bool = False,
) -> MergeReport:
    """Put the changed members of ``returned`` over their files below ``root``, or below a copy.

    A file is replaced only if it still has the content that was sent.  Raises
    :class:`~socketpool.errors.ArchiveError` with nothing replaced.
    """
    if backup:
        check_backup_suffix(backup)
    if manifest.kind != DIRECTORY:
        raise BadManifest("The manifest is that of a zip, not of a directory.")
    with DirectoryLock(root) as folder, Archive.open(returned, limits) as new:
        settle(folder.fd)
        todo, unchanged = _sort(folder.fd, new, manifest)
        arrived = [new.member(change.incoming) for change in todo]
        changes = Changes(
            array("I", (change.row for change in todo)),
            manifest,
            array("Q", (member.size for member in arrived)),
            array("I", (member.crc for member in arrived)),
        )
        if output is not None:
            with FolderCopy(folder.fd, output) as copy:
                _replace_all(copy.fd, new, todo, manifest, changes, backup="", digests=digests)
                copy.commit()
        elif todo:
            for change in todo:
                check_replaceable(folder.fd, change.name)
            _replace_all(folder.fd, new, todo, manifest, changes, backup=backup, digests=digests)
    return MergeReport(
        path=root if output is None else output,
        changed=changes.view(),
        unchanged=View(len(unchanged), lambda at: manifest.name(unchanged[at])),
        missing=len(manifest) - len(todo) - len(unchanged),
        written=bool(todo) or output is not None,
        backup=None,
    )


def _replace_all(
    root: int,
    new: Archive,
    todo: list[_Change],
    manifest: Manifest,
    changes: Changes,
    *,
    backup: str,
    digests: bool,
) -> None:
    facts = [manifest[change.row] for change in todo]
    members = [new.member(change.incoming) for change in todo]
    transaction = Transaction(
        root,
        [
            FileChange(sent.name, sent.crc, sent.size, member.crc, member.size)
            for sent, member in zip(facts, members, strict=True)
        ],
        backup,
    )
    try:
        for at, change in enumerate(todo):
            check = functools.partial(_check_unchanged, manifest=manifest, row=change.row)
            digest = _stage(transaction, at, new, change.incoming, check)
            if digests:
                changes.add_digest(digest)
    except BaseException:
        transaction.roll_back()
        raise
    transaction.commit()


def recover_directory(root: Path, *, finish: bool) -> int:
    """Finish a merge that was killed, or roll it back; how many files it was about.

    Raises :class:`~socketpool.errors.ArchiveError`.
    """
    with DirectoryLock(root) as folder:
        return recover(folder.fd, finish=finish)


class DirectoryLock(Closes):
    """An open directory that no other merge may work on."""

    def __init__(self, root: Path) -> None:
        try:
            self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(os.fsencode(root), error) from error
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self.fd)
            raise ArchiveBusy(
                "Another merge into this directory is running.", hint="Wait for it and try again."
            ) from error
        except OSError:
            pass  # a file system without locks: each file is still checked before it is replaced

    def close(self) -> None:
        """Let others work on it."""
        os.close(self.fd)


def _sort(root: int, new: Archive, manifest: Manifest) -> tuple[list[_Change], array[int]]:
    """Check everything that came back, content included, and find what is new."""
    todo: list[_Change] = []
    unchanged = array("I")
    matcher = Matcher(manifest)
    total = 0
    for member in new:
        row = matcher.row(member.name, member.size)
        if row is None:
            continue
        sent = manifest[row]
        if (member.crc, member.size) == (sent.crc, sent.size):
            unchanged.append(row)
            continue
        check_claims(member, new.limits)
        total += member.size
        check_total(total, new.limits)
        if is_unsafe(member.name):
            raise BadManifest(f"The manifest names {show(member.name)}, which is never sent.")
        verify(member, new.read, new.local(member).data)
        fd = open_file(root, member.name)
        try:
            _check_unchanged(fd, manifest, row)
        finally:
            os.close(fd)
        todo.append(_Change(row, member.name, member.ordinal))
    return todo, unchanged


def _stage(
    transaction: Transaction, at: int, new: Archive, incoming: int, check: Callable[[int], None]
) -> bytes:
    """Write one new file beside the old one; the SHA-256 of its content."""
    import hashlib  # noqa: PLC0415 - loads a large library

    digest = hashlib.sha256()
    member = new.member(incoming)

    def fill(out: Replacement, old: int) -> None:
        for chunk in chunks(member, new.read, new.local(member).data):
            digest.update(chunk)
            out.write(chunk)
        check(old)

    transaction.stage(at, fill)
    return digest.digest()


def _walk(root: int) -> Iterator[tuple[bytes, int, str]]:
    """Name, size and why it can't be sent, for every file and link below an open directory."""
    pending = [(b"", os.dup(root))]
    while pending:
        above, fd = pending.pop()
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    last = os.fsencode(entry.name)
                    name = above + last
                    if OURS.fullmatch(last):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        try:
                            below = os.open(last, FOLDER_FLAGS, dir_fd=fd)
                        except PermissionError:
                            yield name + b"/", 0, UNREADABLE
                        else:
                            pending.append((name + b"/", below))
                    elif entry.is_symlink():
                        yield name, 0, "symbolic link"
                    elif not entry.is_file(follow_symlinks=False):
                        yield name, 0, "special file"
                    else:
                        size = entry.stat(follow_symlinks=False).st_size
                        yield name, size, "unsafe name" if is_unsafe(name) else ""
        finally:
            os.close(fd)


def _check_unchanged(fd: int, manifest: Manifest, row: int) -> None:
    """Refuse to replace a file whose content is no longer what was sent."""
    sent = manifest[row]
    crc = size = 0
    while chunk := os.pread(fd, _CHUNK, size):
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        if size > sent.size:
            break
    if (crc, size) != (sent.crc, sent.size):
        raise _changed(sent.name)


def _changed(name: bytes) -> ArchiveChanged:
    return ArchiveChanged(
        f"The file {show(name)} has changed since it was sent.",
        hint="It was not replaced. Send the directory again as it is now.",
    )
