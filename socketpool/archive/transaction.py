"""Replacing several files of a directory: all of them or none, as seen by the user.

New files are staged beside the old ones first.  Then each old file gets a second name and each new
one is renamed into its place.  A journal in the directory says what is being done, so that a merge
that was killed can be finished or rolled back.

    staging ──▶ committing ──▶ done          staging, done: cleaned up without a question
       │             │                       committing: the user decides (``recover``)
       └─ rolled back ┘
"""

from __future__ import annotations

import json
import os
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from socketpool.archive.commit import Replacement, failed, keep_old
from socketpool.archive.names import is_unsafe, show
from socketpool.archive.opening import open_at, open_parent
from socketpool.archive.refusals import (
    ArchiveChanged,
    BadManifest,
    CommitFailed,
    MergeInterrupted,
    SourceUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

JOURNAL: Final = b".socketpool-merge.jsonl"
OURS: Final = re.compile(
    rb"\.socketpool-merge\.jsonl|\..*\.socketpool-[0-9a-f]{12}(?:\.tmp|-\d+\.(?:new|old))",
    re.DOTALL,
)
"""Names of files that a merge makes and removes again."""

_FORMAT: Final = 1
_MAX_JOURNAL: Final = 1 << 30
_CHUNK: Final = 1 << 18


class FileChange(NamedTuple):
    """A file to be replaced, with checksum and size before and after."""

    name: bytes
    crc_before: int
    size_before: int
    crc: int
    size: int


class Transaction:
    """The replacement of some files below the open directory ``root``, which must be locked.

    Call :meth:`stage` for each change, then :meth:`commit`; :meth:`roll_back` undoes all of it.
    """

    def __init__(self, root: int, changes: Sequence[FileChange], backup: str = "") -> None:
        self._root = root
        self._changes = changes
        self._backup = backup
        self._id = os.urandom(6).hex()
        self._seen: dict[int, os.stat_result] = {}
        head = {"format": _FORMAT, "transaction": self._id, "backup": backup}
        lines = [json.dumps(head), *(json.dumps(_row(each)) for each in changes)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._journal = os.open(JOURNAL, flags, 0o600, dir_fd=root)
        except OSError as error:
            raise failed(error, JOURNAL) from error
        try:
            self._note("\n".join(lines))
        except BaseException:
            self._end()
            raise

    def stage(self, at: int, fill: Callable[[Replacement, int], None]) -> None:
        """Have ``fill`` write the new content of change ``at``, given the old file, opened."""
        name = self._changes[at].name
        folder = open_parent(self._root, name)
        last = name.rpartition(b"/")[2]
        try:
            old = open_at(folder, last, name)
            try:
                self._seen[at] = os.fstat(old)
                with Replacement(folder, last, _new(self._id, at, last)) as out:
                    out.preserve(old)
                    fill(out, old)
                    out.leave()
            finally:
                os.close(old)
        finally:
            os.close(folder)

    def commit(self) -> None:
        """Put all new files in place; raises CommitFailed after having undone what was done."""
        name = JOURNAL
        try:
            self._note(json.dumps({"state": "committing"}))
            for at, change in enumerate(self._changes):
                name = change.name
                self._check_same(at, name)
                _exchange(self._root, self._id, at, change)
            self._note(json.dumps({"state": "done"}))
        except BaseException as error:
            self.roll_back()
            if isinstance(error, OSError):
                raise failed(error, name) from error
            raise
        try:
            _clean_up(self._root, self._id, self._changes, self._backup)
        except OSError as error:
            os.close(self._journal)  # the next run cleans up
            raise CommitFailed(
                f"All files are in place, but the old ones can't be removed: {error.strerror}.",
                hint="The next run tries again.",
            ) from error
        self._end()

    def roll_back(self) -> None:
        """Undo everything."""
        _roll_back(self._root, self._id, self._changes)
        self._end()

    def _check_same(self, at: int, name: bytes) -> None:
        """The last look before the rename: is it still the file that was checked?"""
        with _Parent(self._root, name) as (folder, last):
            now, then = os.stat(last, dir_fd=folder, follow_symlinks=False), self._seen[at]
        if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
            then.st_dev,
            then.st_ino,
            then.st_size,
            then.st_mtime_ns,
        ):
            raise ArchiveChanged(
                f"The file {show(name)} has changed since it was sent.",
                hint="Nothing was replaced. Send the directory again as it is now.",
            )

    def _note(self, text: str) -> None:
        try:
            data = memoryview(text.encode() + b"\n")
            while data:
                data = data[os.write(self._journal, data) :]
            os.fsync(self._journal)
        except OSError as error:
            raise failed(error, JOURNAL) from error

    def _end(self) -> None:
        os.close(self._journal)
        with suppress(FileNotFoundError):
            os.unlink(JOURNAL, dir_fd=self._root)


class _Journal(NamedTuple):
    id: str
    backup: str
    changes: list[FileChange]
    state: str


def is_interrupted(root: int) -> bool:
    """Whether the open directory holds a merge's journal."""
    try:
        os.stat(JOURNAL, dir_fd=root, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:
        return False
    return True


def settle(root: int) -> None:
    """Clean up after a merge that was killed before its first or after its last replacement.

    Raises MergeInterrupted when it was killed in between, because the user has to decide.
    """
    if not is_interrupted(root):
        return
    journal = _read(root)
    if journal.state == "committing":
        done = sum(_is_exchanged(root, journal, at) for at in range(len(journal.changes)))
        raise MergeInterrupted(
            f"a merge into this folder was interrupted when {done:,} of"
            f" {len(journal.changes):,} files were replaced",
            hint="finish it with: socketpool archive recover FOLDER --finish, or take it back"
            " with: socketpool archive recover FOLDER --roll-back",
        )
    _conclude(root, journal, finish=journal.state == "done")


def recover(root: int, *, finish: bool) -> int:
    """Finish an interrupted merge, or roll it back; how many files it was about.

    Raises ArchiveChanged, with nothing done, when a file was edited since.
    """
    if not is_interrupted(root):
        return 0
    journal = _read(root)
    if journal.state == "committing":
        for at, change in enumerate(journal.changes):
            exchanged = _is_exchanged(root, journal, at)
            if exchanged != finish:
                _check_content(root, change, new=exchanged)
        if finish:
            for at, change in enumerate(journal.changes):
                if not _is_exchanged(root, journal, at):
                    _exchange(root, journal.id, at, change)
    _conclude(root, journal, finish=finish)
    return len(journal.changes)


def _conclude(root: int, journal: _Journal, *, finish: bool) -> None:
    if finish and journal.state != "":
        _clean_up(root, journal.id, journal.changes, journal.backup)
    else:
        _roll_back(root, journal.id, journal.changes)
    os.unlink(JOURNAL, dir_fd=root)


def _exchange(root: int, transaction: str, at: int, change: FileChange) -> None:
    """Give the old file its second name, and the new one its place."""
    with _Parent(root, change.name) as (folder, last):
        old, new = _old(transaction, at, last), _new(transaction, at, last)
        try:
            os.link(last, old, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            pass  # done before the interruption
        except OSError:
            os.rename(last, old, src_dir_fd=folder, dst_dir_fd=folder)  # no links there
        os.rename(new, last, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _clean_up(root: int, transaction: str, changes: Sequence[FileChange], backup: str) -> None:
    """The old files go, or become backups."""
    for at, change in enumerate(changes):
        with _Parent(root, change.name) as (folder, last), suppress(FileNotFoundError):
            old = _old(transaction, at, last)
            if backup:
                keep_old(folder, old, last + os.fsencode(backup))
            os.unlink(old, dir_fd=folder)


def _roll_back(root: int, transaction: str, changes: Sequence[FileChange]) -> None:
    """The old files get their places back, and the new ones go."""
    for at, change in enumerate(changes):
        with suppress(SourceUnreadable), _Parent(root, change.name) as (folder, last):
            with suppress(FileNotFoundError):
                os.rename(_old(transaction, at, last), last, src_dir_fd=folder, dst_dir_fd=folder)
                # When the old file still had its own name, both names are the same file, and
                # the rename has done nothing.
                os.unlink(_old(transaction, at, last), dir_fd=folder)
            with suppress(FileNotFoundError):
                os.unlink(_new(transaction, at, last), dir_fd=folder)


def _is_exchanged(root: int, journal: _Journal, at: int) -> bool:
    """Whether the new file has been renamed into its place."""
    with _Parent(root, journal.changes[at].name) as (folder, last):
        try:
            os.stat(_new(journal.id, at, last), dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False


def _check_content(root: int, change: FileChange, *, new: bool) -> None:
    """Refuse to replace what somebody has edited since the interruption."""
    with _Parent(root, change.name) as (folder, last):
        try:
            fd = open_at(folder, last, change.name)
        except SourceUnreadable:
            return  # renamed away where the file system has no links
        try:
            crc = size = 0
            while chunk := os.pread(fd, _CHUNK, size):
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        finally:
            os.close(fd)
    expected = (change.crc, change.size) if new else (change.crc_before, change.size_before)
    if (crc, size) != expected:
        raise ArchiveChanged(
            f"the file {show(change.name)} was edited after the merge was interrupted",
            hint="move it away, or try the other way: --finish or --roll-back",
        )


class _Parent:
    """The folder of a member, open, and the member's name in it."""

    def __init__(self, root: int, name: bytes) -> None:
        self._fd = open_parent(root, name)
        self._last = name.rpartition(b"/")[2]

    def __enter__(self) -> tuple[int, bytes]:
        return self._fd, self._last

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _new(transaction: str, at: int, last: bytes) -> bytes:
    return b".%s.socketpool-%s-%d.new" % (last[:180], transaction.encode(), at)


def _old(transaction: str, at: int, last: bytes) -> bytes:
    return b".%s.socketpool-%s-%d.old" % (last[:180], transaction.encode(), at)


def _row(change: FileChange) -> list[Any]:
    return [change.name.decode(errors="surrogateescape"), *change[1:]]


def _lines(root: int) -> Iterator[str]:
    fd = os.open(JOURNAL, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    with os.fdopen(fd, encoding="ascii") as stream:
        yield from stream.read(_MAX_JOURNAL).splitlines()


def _read(root: int) -> _Journal:
    """The journal; one that was cut off while it was begun stands for no changes at all."""
    try:
        lines = list(_lines(root))
        if len(lines) < 2:
            return _Journal("0" * 12, "", [], "")  # killed before anything was staged
        head = json.loads(lines[0])
        transaction, backup = head["transaction"], head["backup"]
        if not re.fullmatch(r"[0-9a-f]{12}", transaction) or "/" in backup:
            raise _damaged()
        changes, state = [], ""
        for line in lines[1:]:
            try:
                row = json.loads(line)
            except ValueError:
                break  # killed while it was written
            if isinstance(row, dict):
                state = str(row["state"])
                continue
            name, *numbers = row
            change = FileChange(name.encode(errors="surrogateescape"), *map(int, numbers))
            if is_unsafe(change.name):
                raise _damaged()
            changes.append(change)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged() from error
    return _Journal(transaction, backup, changes, state)


def _damaged() -> BadManifest:
    return BadManifest(
        f"the journal {show(JOURNAL)} of an interrupted merge is damaged",
        hint="look at the folder's files, then remove the journal",
    )


def check_replaceable(root: int, name: bytes) -> None:
    """Refuse a file that can't be replaced: read-only, of somebody else, or in such a folder.

    Raises CommitFailed, or SourceUnreadable.
    """
    with _Parent(root, name) as (folder, last):
        if not os.access(last, os.W_OK, dir_fd=folder):
            raise CommitFailed(
                f"The file {show(name)} is read-only.",
                hint="Make it writable, or write another folder with --output.",
            )
        if not os.access(b".", os.W_OK | os.X_OK, dir_fd=folder):
            raise CommitFailed(
                f"The folder of {show(name)} is read-only.",
                hint="Make it writable, or write another folder with --output.",
            )
        found = os.stat(last, dir_fd=folder, follow_symlinks=False)
        if os.geteuid() not in (0, found.st_uid):
            raise CommitFailed(
                f"The file {show(name)} belongs to another user, and can't be replaced as it is.",
                hint="Run as its owner, or write another folder with --output.",
            )
