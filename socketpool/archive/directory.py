"""A directory instead of a zip: the same plan, implode and merge over files.

Files are opened from the root folder by folder and no symlink on the way is followed, so nothing
outside can be read or written.  A merge checks everything that came back first and then replaces
changed files one by one, each atomically.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import zlib
from array import array
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from socketpool.archive.closing import Closes
from socketpool.archive.commit import Replacement, check_backup_suffix, failed, sweep
from socketpool.archive.inflate import check_claims, check_total, chunks, verify
from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.manifest import DIRECTORY, Identity, Manifest
from socketpool.archive.matching import Matcher
from socketpool.archive.names import is_unsafe, is_utf8, show
from socketpool.archive.reader import Archive
from socketpool.archive.receipt import digest_members
from socketpool.archive.refusals import ArchiveBusy, ArchiveChanged, BadManifest, SourceUnreadable
from socketpool.archive.report import Changes, MergeReport, View
from socketpool.archive.writer import CanonicalWriter, unreadable
from socketpool.system.filerange import FileRange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.archive.plan import Plan
    from socketpool.archive.receipt import SentMember

_CHUNK = 1 << 18
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


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
            self._found = sorted(_walk(self.fd))
        except OSError as error:
            os.close(self.fd)
            raise unreadable(os.fsencode(path), error) from error
        self._files = ExitStack()

    def offers(self) -> Iterator[tuple[bytes, int, int, str, bytes, bool]]:
        """Every file and link below the directory, by name."""
        for name, size, never in self._found:
            yield name, size, size, never, b"", False

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
        self.manifest = Manifest(DIRECTORY, Identity())
        self._packed = packed
        writer = CanonicalWriter(packed)
        for ordinal, name in files:
            fd = _open_file(root, name)
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
    backup: str = "",
    limits: Limits = DEFAULT_LIMITS,
    digests: bool = False,
) -> MergeReport:
    """Put the changed members of ``returned`` over their files below ``root``.

    A file is replaced only if it still has the content that was sent.  Raises
    :class:`~socketpool.errors.ArchiveError`; before the first replacement nothing is touched, and a
    failure later leaves whole files, some of them already new.
    """
    if backup:
        check_backup_suffix(backup)
    if manifest.kind != DIRECTORY:
        raise BadManifest("The manifest is that of a zip, not of a directory.")
    with DirectoryLock(root) as folder, Archive.open(returned, limits) as new:
        todo, unchanged = _sort(folder.fd, new, manifest)
        arrived = [new.member(change.incoming) for change in todo]
        changes = Changes(
            array("I", (change.row for change in todo)),
            manifest,
            array("Q", (member.size for member in arrived)),
            array("I", (member.crc for member in arrived)),
        )
        swept: set[bytes] = set()
        for change in todo:
            digest = _replace(folder.fd, new, change, manifest, backup=backup, swept=swept)
            if digests:
                changes.add_digest(digest)
    return MergeReport(
        path=root,
        changed=changes.view(),
        unchanged=View(len(unchanged), lambda at: manifest.name(unchanged[at])),
        missing=len(manifest) - len(todo) - len(unchanged),
        written=bool(todo),
        backup=None,
    )


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
        fd = _open_file(root, member.name)
        try:
            _check_unchanged(fd, manifest, row)
        finally:
            os.close(fd)
        todo.append(_Change(row, member.name, member.ordinal))
    return todo, unchanged


def _replace(
    root: int, new: Archive, change: _Change, manifest: Manifest, *, backup: str, swept: set[bytes]
) -> bytes:
    """Replace one file; the SHA-256 of its new content."""
    import hashlib  # noqa: PLC0415 - loads a large library

    above, _, last = change.name.rpartition(b"/")
    folder = _open_parent(root, change.name)
    try:
        if above not in swept:
            sweep(folder)
            swept.add(above)
        digest = hashlib.sha256()
        member = new.member(change.incoming)
        old = _open_at(folder, last, change.name)
        try:
            with Replacement(folder, last) as out:
                out.preserve(old)
                for chunk in chunks(member, new.read, new.local(member).data):
                    digest.update(chunk)
                    out.write(chunk)
                _check_unchanged(old, manifest, change.row)
                _check_same(folder, last, old, change.name)
                out.commit(backup=backup)
        finally:
            os.close(old)
    except OSError as error:
        raise failed(error, change.name) from error
    finally:
        os.close(folder)
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
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((name + b"/", os.open(last, _FOLDER, dir_fd=fd)))
                    elif entry.is_symlink():
                        yield name, 0, "symbolic link"
                    elif not entry.is_file(follow_symlinks=False):
                        yield name, 0, "special file"
                    else:
                        size = entry.stat(follow_symlinks=False).st_size
                        yield name, size, "unsafe name" if is_unsafe(name) else ""
        finally:
            os.close(fd)


def _open_parent(root: int, name: bytes) -> int:
    """The folder of a member, reached without following any link."""
    fd = os.dup(root)
    for part in name.split(b"/")[:-1]:
        try:
            below = os.open(part, _FOLDER, dir_fd=fd)
        except OSError as error:
            raise unreadable(name, error) from error
        finally:
            os.close(fd)
        fd = below
    return fd


def _open_file(root: int, name: bytes) -> int:
    folder = _open_parent(root, name)
    try:
        return _open_at(folder, name.rpartition(b"/")[2], name)
    finally:
        os.close(folder)


def _open_at(folder: int, last: bytes, name: bytes) -> int:
    try:
        fd = os.open(last, _FILE, dir_fd=folder)
    except OSError as error:
        raise unreadable(name, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceUnreadable(f"{show(name)} is not a regular file.")
    return fd


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


def _check_same(folder: int, last: bytes, fd: int, name: bytes) -> None:
    now = os.stat(last, dir_fd=folder, follow_symlinks=False)
    if not os.path.samestat(now, os.fstat(fd)):
        raise _changed(name)


def _changed(name: bytes) -> ArchiveChanged:
    return ArchiveChanged(
        f"The file {show(name)} has changed since it was sent.",
        hint="It was not replaced. Send the directory again as it is now.",
    )
