"""The interfaces by which users know the trio: uploader, vendor, semaphore."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from socketpool.errors import ServiceFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


class NotLocked(ServiceFailed):
    """There was an `unlock` without a `lock` before it."""

    code = "not-locked"

    def __init__(self) -> None:
        super().__init__(
            "the service unlocked a workspace that it had not locked",
            hint="its operator has to call lock() before each unlock()",
        )


class SemaphoreInterface(ABC):
    """The classic lock/unlock pair around the work on one lease's workspace.

    It is re-entrant: whoever holds the lock may lock again, and others are let in after as many
    calls of `unlock` as there were of `lock`.  The holder is one session; its threads share it.
    """

    @abstractmethod
    def lock(self) -> None:
        """Wait until nobody else works on the workspace, then keep others out.

        Returns at once to whoever holds the lock already.  Raises
        :class:`~socketpool.errors.TimedOut` when it takes too long.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Take one `lock` back; the last one lets others in again.  Raises `NotLocked`."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """`lock` for the length of a ``with`` block."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()


class TransferInterface(ABC):
    """One step of a run as the client sees it: connect, transfer, close."""

    @abstractmethod
    def connect(self) -> None:
        """Open the session and show the lease's token."""

    @abstractmethod
    def transfer(self) -> None:
        """Do the step's work; returns when it is done on both sides."""

    @abstractmethod
    def close(self) -> None:
        """End the session; may be called more than once."""


class UploaderInterface(TransferInterface):
    """The client's side of *upload*, which decides what leaves the machine."""

    def is_implodable(self, member: Any) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a member is taken out of what is sent, and so stays at home.

        It is asked after the policy and can only hold back more.  ``member`` is a member of the
        archive as :mod:`socketpool.archive` describes it.
        """
        return False


class VendorInterface(ABC):
    """The server's side of *vendor*: the operator's processing code."""

    @abstractmethod
    def transfer(self) -> None:
        """Process the members that were uploaded."""
