"""The errors a user can meet, each with an exit code, a stable code and a next step.

Everything that is raised on purpose derives from :class:`SocketpoolError`; the commands turn it
into one line on stderr and the exit code.  Anything else that escapes is a bug (exit code 1).
"""

from __future__ import annotations

from typing import ClassVar


class SocketpoolError(Exception):
    """A failure that was foreseen.

    ``message`` is a sentence for the user; ``hint`` says what to do about it.  Neither ever holds
    a secret.  ``reference`` is set where somebody keeps the story of the failure under it.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "unexpected"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reference = ""


class UsageError(SocketpoolError):
    """The command line asks for something that makes no sense."""

    exit_code = 2
    code = "usage"


class ConfigError(SocketpoolError):
    """A configuration file, or a file it names, can't be used."""

    exit_code = 2
    code = "configuration"


class PoolUnreachable(SocketpoolError):
    """No pool server answers at the address."""

    exit_code = 3
    code = "pool-unreachable"


class NoCapacity(SocketpoolError):
    """The pool can't grant the lease now."""

    exit_code = 4
    code = "no-capacity"


class NotAuthorised(SocketpoolError):
    """A token is missing, wrong or no longer valid."""

    exit_code = 5
    code = "not-authorised"


class ArchiveError(SocketpoolError):
    """The archive was refused or arrived damaged; the original is untouched."""

    exit_code = 6
    code = "archive"


class ServiceFailed(SocketpoolError):
    """A service of the lease reported a failure; the message is the service's own."""

    exit_code = 7
    code = "service-failed"


class TimedOut(SocketpoolError):
    """Something that has a time limit reached it."""

    exit_code = 8
    code = "timed-out"


INTERRUPTED_EXIT_CODE = 130
"""Exit code after Ctrl-C, as shells report it (128 + SIGINT)."""
