"""Blocks on a stream: lines of text and whole files, blocking in meaning.

A call that sends returns when the peer has it: a file block is acknowledged only after its size and
SHA-256 were verified and the file is in its place.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from socketpool.errors import FileRefused
from socketpool.protocol.filesource import CHUNK, FileSource
from socketpool.protocol.frames import (
    MAX_LINE_BYTES,
    Kind,
    ProtocolError,
    Stream,
    read_exactly,
    read_header,
    read_text,
    receive,
    send_header,
)
from socketpool.protocol.transfer import TRANSFER_ID_BYTES, FileTransfer, unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from socketpool.protocol.transfer import Progress

PART_SUFFIX = ".part"
NOTE_SUFFIX = ".stored"

_DIGEST_BYTES = hashlib.sha256().digest_size


def send_line_block(stream: Stream, text: str) -> None:
    """Send one text of at most 64 KiB; raises ValueError for a longer one."""
    payload = check_line(text)
    send_header(stream, Kind.LINE, len(payload), payload)


def check_line(text: str) -> bytes:
    """The text as a line block holds it; raises ValueError when it is too long for one."""
    payload = text.encode()
    if len(payload) > MAX_LINE_BYTES:
        raise ValueError(f"a line block holds {MAX_LINE_BYTES} bytes at most")
    return payload


def read_line_block(stream: Stream) -> str:
    """The peer's next text.  Raises ProtocolError, ConnectionCut or TimedOut."""
    kind, length = read_header(stream)
    if kind is not Kind.LINE:
        raise ProtocolError(f"expected a line block, the peer sent {kind.name}")
    return read_text(stream, length)


def send_file_block(
    stream: Stream,
    source: FileSource,
    *,
    transfer_id: bytes | None = None,
    progress: Progress | None = None,
) -> str:
    """Send one file over one connection; see `FileTransfer.run`.

    Without an identity it is a transfer of its own, and a cut one begins afresh.
    """
    identity = transfer_id or os.urandom(TRANSFER_ID_BYTES)
    return FileTransfer(source, identity, progress).run(stream)


def write_file_block(
    stream: Stream, target: Path, *, max_size: int, progress: Progress | None = None
) -> str:
    """Receive one file and put it at ``target`` at once and whole; returns its SHA-256.

    ``target`` is replaced only after size and digest agree; when that goes to the disk is left to
    the kernel, as no lease outlives a crash of the machine. Until then the bytes are beside it,
    and stay there when the connection is cut, for the same transfer to go on. A note beside it
    tells afterwards which transfer it is from: when that is repeated, because its receipt was
    lost, no byte needs to travel. Raises :class:`FileRefused`, having told the sender, when the
    file is larger than ``max_size``, can't be stored or arrived damaged.
    """
    kind, size = read_header(stream)
    if kind is not Kind.FILE:
        raise unexpected(stream, kind, size, "for a file block")
    transfer_id = read_exactly(stream, TRANSFER_ID_BYTES)
    part = target.with_name(f".{target.name}.{transfer_id.hex()}{PART_SUFFIX}")
    note = target.with_name(f".{target.name}{NOTE_SUFFIX}")
    try:
        if size > max_size:
            raise FileRefused(f"the file has {size} bytes; {max_size} are allowed")
        with _storing():
            _forget_others(target, part)
            if _is_noted(note, target, size, transfer_id):
                with target.open("rb", buffering=0) as there:
                    digest = _receive(stream, there, size, progress)
            else:
                with part.open("a+b", buffering=0) as out:
                    digest = _receive(stream, out, size, progress)
                note.write_bytes(_noted(part, transfer_id))
                part.replace(target)
    except FileRefused as refusal:
        part.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        payload = refusal.message.encode()[:MAX_LINE_BYTES]
        send_header(stream, Kind.REFUSAL, len(payload), payload)
        raise
    send_header(stream, Kind.RECEIPT, 0)
    return digest.hex()


def _noted(path: Path, transfer_id: bytes) -> bytes:
    """What the note says of a file: which transfer it is from, and which file was meant."""
    found = path.stat()
    return f"{transfer_id.hex()} {found.st_ino} {found.st_mtime_ns} {found.st_size}".encode()


def _is_noted(note: Path, target: Path, size: int, transfer_id: bytes) -> bool:
    """Whether the file in place is what this very transfer put there, untouched since."""
    try:
        expected = _noted(target, transfer_id)
        return target.stat().st_size == size and note.read_bytes() == expected
    except FileNotFoundError:
        return False


def _receive(stream: Stream, out: BinaryIO, size: int, progress: Progress | None) -> bytes:
    """Take in what is missing of the file, verified; raises FileRefused."""
    offset = out.seek(0, os.SEEK_END)
    if offset > size:
        out.truncate(0)
        offset = 0
    if shutil.disk_usage(out.fileno()).free < size - offset:
        raise FileRefused(f"the receiver has no room for {size - offset} bytes")
    digest = hashlib.sha256()
    out.seek(0)
    while chunk := out.read(CHUNK):
        digest.update(chunk)
    send_header(stream, Kind.GO, offset)
    left = size - offset
    failure: OSError | None = None
    while left:
        # Even what can't be stored is taken in, so that the refusal gets through.
        data = receive(stream, min(CHUNK, left))
        digest.update(data)
        left -= len(data)
        if failure is None:
            failure = _write(out, data)
        if progress is not None:
            progress(size - left, size)
    agrees = read_exactly(stream, _DIGEST_BYTES) == digest.digest()
    if failure is not None:
        raise failure
    if not agrees:
        raise FileRefused("the file was damaged in transit")
    return digest.digest()


def _write(out: BinaryIO, data: bytes) -> OSError | None:
    view = memoryview(data)
    try:
        while view:
            view = view[out.write(view) :]
    except OSError as error:
        return error
    return None


@contextmanager
def _storing() -> Iterator[None]:
    """A failing disk becomes a refusal; what fails on the stream is typed by now and passes."""
    try:
        yield
    except OSError as error:
        raise FileRefused(f"the receiver can't store the file: {error.strerror}") from error


def _forget_others(target: Path, part: Path) -> None:
    """Another transfer to the same place has begun: what is left of earlier ones is of no use."""
    for other in target.parent.glob(f".{glob.escape(target.name)}.*{PART_SUFFIX}"):
        if other != part:
            other.unlink(missing_ok=True)
