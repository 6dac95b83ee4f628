"""What a session is doing, noted where its parent can read it after the session's death.

The parent makes a record for each session that it forks; the session writes it.  A session that
was killed, or whose native code crashed, can't say anything itself: the record tells the parent
whether the client still waits for a verdict, and which member was being worked on.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any

from socketpool.protocol.frames import watch_sending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.protocol.frames import Stream

_LEASE_AT, _LEASE_BYTES = 16, 64
_MEMBER_AT, _MEMBER_BYTES = 128, 1024
_LENGTH = struct.Struct("<H")
_TOTAL = _MEMBER_AT + _LENGTH.size + _MEMBER_BYTES


class Phase(IntEnum):
    """How far a session is."""

    GREETING = 0  # the client has not shown its token yet
    WORKING = 1  # it waits for the verdict
    OVER = 2  # it has the verdict, or has gone


class WorkRecord:
    """Memory that a session and its parent share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _TOTAL)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()

    @property
    def phase(self) -> Phase:
        """How far the session is; nonsense that it wrote counts as the end."""
        try:
            return Phase(self._memory[0])
        except ValueError:
            return Phase.OVER

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._memory[0] = phase

    @property
    def unfinished_block(self) -> bool:
        """Whether the session is in the middle of sending a block: no verdict fits in there."""
        return self._memory[1] != 0

    @unfinished_block.setter
    def unfinished_block(self, unfinished: bool) -> None:
        self._memory[1] = unfinished

    @property
    def lease(self) -> str:
        """The lease's id; empty before the greeting."""
        return self._read(_LEASE_AT, _LEASE_BYTES).decode("ascii", "replace")

    @lease.setter
    def lease(self, lease: str) -> None:
        self._write(_LEASE_AT, lease.encode(), _LEASE_BYTES)

    @property
    def member(self) -> bytes:
        """The name of the member that was being worked on; empty when none was."""
        return self._read(_MEMBER_AT, _MEMBER_BYTES)

    @member.setter
    def member(self, name: bytes) -> None:
        self._write(_MEMBER_AT, name, _MEMBER_BYTES)

    def _read(self, at: int, most: int) -> bytes:
        (length,) = _LENGTH.unpack_from(self._memory, at)
        begin = at + _LENGTH.size
        return self._memory[begin : begin + min(length, most)]

    def _write(self, at: int, data: bytes, most: int) -> None:
        begin, data = at + _LENGTH.size, data[:most]
        self._memory[begin : begin + len(data)] = data
        _LENGTH.pack_into(self._memory, at, len(data))


_current: WorkRecord | None = None


def begin_record(record: WorkRecord, stream: Stream) -> None:
    """Note in this record what the session of this process does, and sends on this stream."""
    global _current  # noqa: PLW0603 - a process has one session at most
    _current = record
    watch_sending(stream, partial(setattr, record, "unfinished_block"))


def note_member(name: str) -> None:
    """Note which member is being worked on; empty for none."""
    if _current is not None:
        _current.member = name.encode("utf-8", "surrogateescape")


class WatchedMembers(Mapping[str, "Path"]):
    """Members by name; whoever is asked for, or whose file is opened, is being worked on."""

    def __init__(self, members: Mapping[str, Path]) -> None:
        self._members = members
        self._names: dict[str, str] = {}
        if _current is not None:
            self._names = {str(path): name for name, path in members.items()}
            sys.addaudithook(self._hear)

    def __getitem__(self, name: str) -> Path:
        """The member's file."""
        path = self._members[name]
        note_member(name)
        return path

    def __iter__(self) -> Iterator[str]:
        """The names; after the last one no member is being worked on."""
        yield from self._members
        note_member("")

    def __len__(self) -> int:
        """How many members there are."""
        return len(self._members)

    def end_watch(self) -> None:
        """The vendor's work is over: whoever opens a file from now on does not work on it."""
        self._names = {}
        note_member("")

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            self._note_path(arguments[0])
        elif event == "subprocess.Popen":
            with suppress(TypeError):
                for argument in arguments[1]:
                    self._note_path(argument)

    def _note_path(self, path: object) -> None:
        with suppress(TypeError, ValueError):
            name = self._names.get(os.fsdecode(path))  # type: ignore[arg-type]
            if name is not None:
                note_member(name)
