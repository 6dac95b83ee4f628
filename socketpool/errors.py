"""The errors a user can meet, each with an exit code, a stable code and a next step.

Everything that is raised on purpose derives from :class:`SocketpoolError`; the commands turn it
into one line on stderr and the exit code.  Anything else that escapes is a bug (exit code 1).

The families stand first: they decide the exit code.  After them come the errors of the API and of
sessions, each a member of a family, so that a caller who catches the family catches them too.
"""

from __future__ import annotations

from typing import ClassVar


class SocketpoolError(Exception):
    """A failure that was foreseen and has no class of its own.

    ``message`` is a sentence for the user; ``hint`` says what to do about it.  Neither ever holds
    a secret.  ``reference`` is set where the pool server keeps the history of the request under it.

    A class that crosses the API or a session (see :mod:`socketpool.errorregistry`) must be
    constructible from a message and a hint alone.
    """

    exit_code: ClassVar[int] = 1
    """Exit code of a command that fails with it."""

    code: ClassVar[str] = "unexpected"
    """Stable name, by which programs and the other side of a connection know it."""

    status: ClassVar[int] = 500
    """HTTP status of the API's answer that reports it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reference = ""


class UsageError(SocketpoolError):
    """The command line, or a request, asks for something that makes no sense."""

    exit_code = 2
    code = "usage"
    status = 422


class ConfigError(SocketpoolError):
    """A configuration file, or a file it names, can't be used."""

    exit_code = 2
    code = "configuration"
    status = 422


class PoolUnreachable(SocketpoolError):
    """No pool server answers at the address."""

    exit_code = 3
    code = "pool-unreachable"


class NoCapacity(SocketpoolError):
    """The pool can't grant the lease now."""

    exit_code = 4
    code = "no-capacity"
    status = 503


class NotAuthorised(SocketpoolError):
    """A token is missing, wrong or no longer valid."""

    exit_code = 5
    code = "not-authorised"
    status = 401


class WrongListener(SocketpoolError):
    """Somebody else's program listens where the pool should; no token was sent to it."""

    exit_code = 5
    code = "wrong-listener"


class ArchiveError(SocketpoolError):
    """The archive was refused or arrived damaged; the original is untouched."""

    exit_code = 6
    code = "archive"


class ServiceFailed(SocketpoolError):
    """A service of the lease reported a failure; the message is the service's own."""

    exit_code = 7
    code = "service-failed"


class ServiceCrashed(ServiceFailed):
    """The process of a session ended without a verdict; the next try may fare better."""

    code = "service-crashed"


class TimedOut(SocketpoolError):
    """Something that has a time limit reached it."""

    exit_code = 8
    code = "timed-out"
    status = 408


class ServiceUnknown(UsageError):
    """The catalogue has no service of that name."""

    code = "unknown-service"
    status = 404


class KeyReused(UsageError):
    """A request key came back with another request."""

    code = "key-reused"
    status = 409


class NoSuchTarget(UsageError):
    """What is to be drained is neither a service nor an instance."""

    code = "no-such-target"
    status = 404


class TooLarge(UsageError):
    """A request is larger than the API accepts."""

    code = "too-large"
    status = 413


class NoSuchLease(NotAuthorised):
    """The lease doesn't exist, has ended, or is another client's."""

    code = "no-such-lease"
    status = 404


class ServiceForbidden(NotAuthorised):
    """The client may not lease this service."""

    code = "service-forbidden"
    status = 403


class OperatorOnly(NotAuthorised):
    """A named client asks for what only the operator may do."""

    code = "operator-only"
    status = 403


class QuotaExceeded(NoCapacity):
    """The client has as many leases, instances or waiting requests as it may have."""

    code = "quota-exceeded"
    status = 429


class StoreError(NoCapacity):
    """The lease store can't take or give records now: a full disk, a damaged file."""

    code = "store-unavailable"


class FileRefused(ArchiveError):
    """The receiver did not take the file."""

    code = "file-refused"


class SourceChanged(ArchiveError):
    """The file changed while it was being sent."""

    code = "source-changed"

    def __init__(
        self,
        message: str = "the file changed while it was being sent",
        *,
        hint: str = "leave it alone and start again",
    ) -> None:
        super().__init__(message, hint=hint)


INTERRUPTED_EXIT_CODE = 130
"""Exit code after Ctrl-C, as shells report it (128 + SIGINT)."""
