"""How lines and files travel within a session's work, by the client that opened it.

A service offers the same four calls to every client.  What they mean on the wire depends on who
listens: the shipped client of a vendor is told of each block before it comes, and asked for each
one that the service wants, so that both sides always agree on whose turn it is; an upload or a
download consists of one file, and nothing else fits in; a client that says no kind speaks a
protocol of its own.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import ServiceFailed
from socketpool.protocol import blocks
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.session import read_answer, send_event
from socketpool.protocol.transfer import TRANSFER_ID_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.protocol.frames import Stream


class NothingSent(ServiceFailed):
    """The service asked its client for a line or a file, and the client has none."""

    code = "nothing-sent"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the service asked for a {what}, and the client has none to send",
            hint=f"a subclass of VendorClient sends one: override {what}_to_send",
        )


class NotOffered(ServiceFailed):
    """The block has no place in a session of this kind."""

    code = "not-offered"

    def __init__(self, kind: ServiceKind) -> None:
        super().__init__(
            f"lines and further files are for vendor services; the session is one of {kind}",
            hint="its operator can send them from a vendor service",
        )


class Conversation(ABC):
    """The blocks of one session, as its service sends and receives them."""

    def __init__(self, stream: Stream, max_size: int) -> None:
        self._stream = stream
        self._max_size = max_size

    @abstractmethod
    def send_line(self, text: str) -> None:
        """Send one text of at most 64 KiB."""

    @abstractmethod
    def read_line(self) -> str:
        """The client's next text."""

    @abstractmethod
    def send_file(self, path: Path) -> str:
        """Send a file; returns its SHA-256 once the client has it."""

    @abstractmethod
    def write_file(self, target: Path) -> str:
        """Receive a file and put it at ``target``; returns its SHA-256."""


class PlainBlocks(Conversation):
    """The blocks as they are, for clients with a protocol of their own."""

    def send_line(self, text: str) -> None:
        """See `Conversation.send_line`."""
        blocks.send_line_block(self._stream, text)

    def read_line(self) -> str:
        """See `Conversation.read_line`."""
        return blocks.read_line_block(self._stream)

    def send_file(self, path: Path) -> str:
        """See `Conversation.send_file`."""
        with path.open("rb") as file:
            return self._send(OpenFile(file.fileno(), os.fstat(file.fileno()).st_size))

    def write_file(self, target: Path) -> str:
        """See `Conversation.write_file`."""
        return blocks.write_file_block(self._stream, target, max_size=self._max_size)

    def _send(self, source: OpenFile) -> str:
        # A client that lost its connection gets the rest of the same file when it asks again.
        found = os.fstat(source.fd)
        identity = f"{found.st_ino} {found.st_mtime_ns} {found.st_size}".encode()
        transfer_id = hashlib.sha256(identity).digest()[:TRANSFER_ID_BYTES]
        return blocks.send_file_block(self._stream, source, transfer_id=transfer_id)


class AnnouncedBlocks(PlainBlocks):
    """Each block is announced or asked for by an event, which the client of a vendor answers."""

    def send_line(self, text: str) -> None:
        """See `Conversation.send_line`; returns when the client has it."""
        blocks.check_line(text)
        send_event(self._stream, "line")
        super().send_line(text)
        read_answer(self._stream)

    def read_line(self) -> str:
        """See `Conversation.read_line`; raises NothingSent when the client has none."""
        send_event(self._stream, "line-wanted")
        if not read_answer(self._stream):
            raise NothingSent("line")
        return super().read_line()

    def write_file(self, target: Path) -> str:
        """See `Conversation.write_file`; raises NothingSent when the client has none."""
        send_event(self._stream, "file-wanted")
        if not read_answer(self._stream):
            raise NothingSent("file")
        return super().write_file(target)

    def _send(self, source: OpenFile) -> str:
        send_event(self._stream, "file", bytes=source.size)
        digest = super()._send(source)
        read_answer(self._stream)
        return digest


class OneFile(PlainBlocks):
    """An upload or a download: its one file, in its direction."""

    def __init__(self, stream: Stream, max_size: int, kind: ServiceKind) -> None:
        super().__init__(stream, max_size)
        self._kind = kind
        self._left = {kind}

    def send_line(self, text: str) -> None:
        """Refused with NotOffered."""
        del text
        raise NotOffered(self._kind)

    def read_line(self) -> str:
        """Refused with NotOffered."""
        raise NotOffered(self._kind)

    def send_file(self, path: Path) -> str:
        """See `Conversation.send_file`; raises NotOffered but for a download's one file."""
        self._take(ServiceKind.DOWNLOAD)
        return super().send_file(path)

    def write_file(self, target: Path) -> str:
        """See `Conversation.write_file`; raises NotOffered but for an upload's one file."""
        self._take(ServiceKind.UPLOAD)
        return super().write_file(target)

    def _take(self, direction: ServiceKind) -> None:
        if direction not in self._left:
            raise NotOffered(self._kind)
        self._left.clear()


def conversation_with(client: str, stream: Stream, max_size: int) -> Conversation:
    """The conversation with a client of this kind, as its greeting names it; empty for none."""
    match client:
        case ServiceKind.VENDOR:
            return AnnouncedBlocks(stream, max_size)
        case ServiceKind.UPLOAD | ServiceKind.DOWNLOAD:
            return OneFile(stream, max_size, ServiceKind(client))
        case _:
            return PlainBlocks(stream, max_size)
