"""What can be wrong with an archive, one type per refusal, so that callers can tell them apart.

Every message is a sentence for the user and names the member concerned, escaped by
:func:`socketpool.archive.names.show`.  When one of these is raised the original is untouched.
"""

from __future__ import annotations

from socketpool.errors import ArchiveError


class NotAnArchive(ArchiveError):
    """The file has no end record of a zip, or isn't a regular file."""

    code = "not-an-archive"


class AmbiguousArchive(ArchiveError):
    """Two programs could read two different archives out of the same bytes."""

    code = "ambiguous-archive"


class UnsupportedArchive(ArchiveError):
    """The archive uses a feature that can't be handled safely, such as several disks."""

    code = "unsupported-archive"


class DamagedArchive(ArchiveError):
    """The archive's own records contradict each other or end too early."""

    code = "damaged-archive"


class OverlappingMembers(ArchiveError):
    """Two members claim the same bytes, or a member's data runs into the directory."""

    code = "overlapping-members"


class NameMismatch(ArchiveError):
    """The name beside a member's data differs from its name in the directory."""

    code = "name-mismatch"


class LyingMember(ArchiveError):
    """A member's sizes, checksum or headers are not true."""

    code = "lying-member"


class LimitExceeded(ArchiveError):
    """An archive or a member is larger than the configuration allows."""

    code = "limit-exceeded"


class CompressionBomb(LimitExceeded):
    """A member expands to far more than any honest one would."""

    code = "compression-bomb"


class ForbiddenShape(ArchiveError):
    """An archive that should be canonical holds something a canonical archive never does."""

    code = "forbidden-shape"


class NeverSent(ArchiveError):
    """A member came back that had never left."""

    code = "never-sent"


class ReturnedTwice(ArchiveError):
    """A member came back more than once."""

    code = "returned-twice"


class ArchiveChanged(ArchiveError):
    """The original is no longer what it was when its members were sent."""

    code = "archive-changed"


class ArchiveBusy(ArchiveError):
    """Another merge into the same archive is running."""

    code = "archive-busy"


class SignedArchive(ArchiveError):
    """A change would break the archive's signature."""

    code = "signed-archive"


class HookFailed(ArchiveError):
    """The user's ``is_implodable`` raised or answered with something other than a bool."""

    code = "hook-failed"


class BadManifest(ArchiveError):
    """A manifest can't be read or doesn't belong to this kind of source."""

    code = "bad-manifest"


class CommitFailed(ArchiveError):
    """The new archive could not be put in place; the old one is still there."""

    code = "commit-failed"


class NoSpace(CommitFailed):
    """The disk or the quota is full."""

    code = "no-space"


class CannotPreserve(CommitFailed):
    """Owner or attributes of the original can't be given to its replacement."""

    code = "cannot-preserve"


class MergeInterrupted(ArchiveError):
    """A merge into a directory was killed between its first and its last replaced file."""

    code = "merge-interrupted"


class NothingToSend(ArchiveError):
    """No member may leave, so that a run would have no effect."""

    code = "nothing-to-send"


class SourceUnreadable(ArchiveError):
    """The archive or directory can't be opened or read."""

    code = "source-unreadable"


ALL = tuple(
    cls
    for cls in globals().values()
    if isinstance(cls, type) and issubclass(cls, ArchiveError) and cls is not ArchiveError
)
"""Every class of this module."""
