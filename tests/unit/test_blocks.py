"""Blocks on a stream, with a peer that may do anything."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.errors import FileRefused, SocketpoolError, SourceChanged, TimedOut
from socketpool.protocol.blocks import (
    read_line_block,
    send_file_block,
    send_line_block,
    write_file_block,
)
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import (
    MAX_LINE_BYTES,
    VERSION,
    ConnectionCut,
    Kind,
    ProtocolError,
    watch_sending,
)
from socketpool.protocol.transfer import TRANSFER, FileTransfer, TransferState
from tests.support.aside import Aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HEADER = struct.Struct(">BBQ")
DATA = bytes(range(256)) * 4096


def header(kind: int, length: int, version: int = VERSION) -> bytes:
    return HEADER.pack(version, kind, length)


def file_bytes(data: bytes) -> bytes:
    return header(Kind.FILE, len(data)) + bytes(16) + data + hashlib.sha256(data).digest()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def chunked(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


class Given:
    """A source of these chunks, whatever their sum; they can be had again and again."""

    def __init__(self, size: int, chunks: Iterable[bytes]) -> None:
        self.size = size
        self._chunks = list(chunks)

    def segments(self) -> Iterator[bytes]:
        return iter(self._chunks)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def everything(stream: socket.socket) -> bytes:
    """All that comes until the peer closes."""
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class OneByteAtATime:
    """A stream that delivers as slowly as a stream may."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def recv(self, size: int) -> bytes:
        return self._stream.recv(min(size, 1))

    def sendall(self, data: bytes | memoryview) -> None:
        for i in range(len(data)):
            self._stream.sendall(data[i : i + 1])


@given(st.lists(st.text(max_size=300), max_size=8))
def test_lines_arrive_as_they_were_and_apart(lines: list[str]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for line in lines:
            send_line_block(ours, line)
        assert [read_line_block(theirs) for _ in lines] == lines


@pytest.mark.parametrize("text", ["", "x" * MAX_LINE_BYTES, "é" * (MAX_LINE_BYTES // 2), "a\0\nb"])
def test_a_line_of_any_allowed_size_arrives(pair: Any, text: str) -> None:
    ours, theirs = pair
    sender = Aside(send_line_block, ours, text)
    assert read_line_block(theirs) == text
    sender.result()


def test_a_line_too_long_is_not_sent(pair: Any) -> None:
    ours, theirs = pair
    with pytest.raises(ValueError, match=str(MAX_LINE_BYTES)):
        send_line_block(ours, "é" * (MAX_LINE_BYTES // 2) + "x")
    ours.close()
    assert theirs.recv(1) == b""


@pytest.mark.parametrize("length", [MAX_LINE_BYTES + 1, 1 << 40, (1 << 64) - 1])
def test_an_announced_line_too_long_is_refused_at_once(pair: Any, length: int) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.LINE, length))
    with pytest.raises(ProtocolError, match=str(length)):
        read_line_block(ours)


@pytest.mark.parametrize("version", [0, 2, 255, ord("G")])
def test_another_version_is_refused_with_both_numbers(pair: Any, version: int) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.LINE, 0, version))
    with pytest.raises(ProtocolError, match=f"{version}, this side {VERSION}") as caught:
        read_line_block(ours)
    assert "release" in caught.value.hint


@pytest.mark.parametrize("kind", [0, 6, 99, 255])
def test_an_unknown_kind_is_refused(pair: Any, kind: int) -> None:
    ours, theirs = pair
    theirs.sendall(header(kind, 0))
    with pytest.raises(ProtocolError, match=f"unknown kind {kind}"):
        read_line_block(ours)


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.GO, Kind.RECEIPT, Kind.REFUSAL])
def test_another_block_than_a_line_is_refused(pair: Any, kind: Kind) -> None:
    ours, theirs = pair
    theirs.sendall(header(kind, 0))
    with pytest.raises(ProtocolError, match=f"expected a line block.*{kind.name}"):
        read_line_block(ours)


def test_a_line_that_is_not_utf8_is_refused(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.LINE, 2) + b"\xff\xfe")
    with pytest.raises(ProtocolError, match="UTF-8"):
        read_line_block(ours)


@given(st.binary(max_size=200))
def test_no_noise_is_taken_for_a_line_or_hangs(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(noise)
        theirs.shutdown(socket.SHUT_WR)
        try:
            text = read_line_block(ours)
        except (ProtocolError, ConnectionCut):
            return
        assert noise.startswith(header(Kind.LINE, len(text.encode())) + text.encode())


def test_a_line_cut_anywhere_is_a_cut() -> None:
    whole = header(Kind.LINE, 5) + b"hello"
    for length in range(len(whole)):
        ours, theirs = socket.socketpair()
        with ours:
            theirs.sendall(whole[:length])
            theirs.close()
            with pytest.raises(ConnectionCut, match="closed"):
                read_line_block(ours)


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "1 MiB"])
def test_a_file_arrives_and_both_sides_know_its_digest(
    pair: Any, tmp_path: Path, data: bytes
) -> None:
    ours, theirs = pair
    seen: list[tuple[int, int]] = []
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=len(data))
    digest = send_file_block(
        ours,
        Given(len(data), chunked(data)),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert digest == receiver.result() == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "f").read_bytes() == data
    assert names(tmp_path) == [".f.stored", "f"]
    assert seen == sorted(seen)
    assert not data or seen[-1] == (len(data), len(data))


def test_a_stream_of_single_bytes_is_as_good(pair: Any, tmp_path: Path) -> None:
    ours, theirs = map(OneByteAtATime, pair)
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=3000)
    send_file_block(ours, Given(3000, [DATA[:3000]]))
    receiver.result()
    assert (tmp_path / "f").read_bytes() == DATA[:3000]


def test_blocks_after_a_file_are_read_as_usual(pair: Any, tmp_path: Path) -> None:
    ours, theirs = pair
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=10)
    send_file_block(ours, Given(3, [b"abc"]))
    receiver.result()
    send_line_block(ours, "next")
    assert read_line_block(theirs) == "next"


def test_a_file_too_large_is_refused_before_its_bytes_travel(pair: Any, tmp_path: Path) -> None:
    ours, theirs = pair
    (tmp_path / "f").write_bytes(b"old")
    touched: list[bytes] = []

    class Touched:
        size = 11

        def segments(self) -> Iterator[bytes]:
            touched.append(b"x")
            yield b"x" * 11

    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=10)
    with pytest.raises(FileRefused, match="11 bytes; 10 are allowed") as caught:
        send_file_block(ours, Touched())
    assert caught.value.exit_code == 6
    with pytest.raises(FileRefused, match="11 bytes; 10 are allowed"):
        receiver.result()
    assert touched == []
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"old"}


def test_the_sender_waits_for_the_receipt(pair: Any, tmp_path: Path) -> None:
    """`send_file_block` returns only when the peer says that the file is in its place."""
    ours, theirs = pair
    sender = Aside(send_file_block, ours, Given(3, [b"abc"]))
    assert theirs.recv(26).startswith(header(Kind.FILE, 3))
    theirs.sendall(header(Kind.GO, 0))
    expected = b"abc" + hashlib.sha256(b"abc").digest()
    assert b"".join(theirs.recv(1) for _ in expected) == expected
    sender.join(0.2)
    assert sender.is_alive()
    theirs.sendall(header(Kind.RECEIPT, 0))
    assert sender.result() == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("at", [0, 500, 1000, 1031])
def test_a_damaged_file_is_refused_and_the_old_one_stays(
    pair: Any, tmp_path: Path, at: int
) -> None:
    """One bit flipped: in the content, or in the digest itself."""
    ours, theirs = pair
    (tmp_path / "f").write_bytes(b"old")
    payload = bytearray(DATA[:1000] + hashlib.sha256(DATA[:1000]).digest())
    payload[at] ^= 1
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=1 << 20)
    ours.sendall(header(Kind.FILE, 1000) + bytes(16) + payload)
    with pytest.raises(FileRefused, match="damaged in transit"):
        receiver.result()
    assert ours.recv(10) == header(Kind.GO, 0)
    kind, length = HEADER.unpack(ours.recv(10))[1:]
    assert kind == Kind.REFUSAL
    assert b"damaged" in ours.recv(length)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"old"}


def test_a_file_cut_at_any_byte_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    whole = file_bytes(b"the new content")
    for length in range(len(whole)):
        ours, theirs = socket.socketpair()
        with theirs:
            ours.sendall(whole[:length])
            ours.shutdown(socket.SHUT_WR)
            with ours, pytest.raises(ConnectionCut):
                write_file_block(theirs, tmp_path / "f", max_size=1 << 20)
        assert (tmp_path / "f").read_bytes() == b"old", length
        for part in tmp_path.glob(".f.*.part"):
            assert b"the new content".startswith(part.read_bytes())
            part.unlink()
        assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_receiver_that_goes_at_any_byte_is_noticed(tmp_path: Path) -> None:
    answers = header(Kind.GO, 0) + header(Kind.RECEIPT, 0)
    for length in range(len(answers)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(answers[:length])
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionCut):
                send_file_block(ours, Given(3, [b"abc"]))


@pytest.mark.parametrize("kind", [Kind.LINE, Kind.FILE, Kind.RECEIPT])
def test_another_answer_than_go_is_a_violation(pair: Any, kind: Kind) -> None:
    ours, theirs = pair
    theirs.sendall(header(kind, 0))
    with pytest.raises(ProtocolError, match=f"{kind.name} for a file that is announced"):
        send_file_block(ours, Given(3, [b"abc"]))


def test_a_refusal_of_endless_length_is_not_read(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.REFUSAL, 1 << 50))
    with pytest.raises(ProtocolError, match="announced"):
        send_file_block(ours, Given(3, [b"abc"]))


@pytest.mark.parametrize("chunks", [[b"ab"], [b"abcd"], [], [b"abc", b"d"]])
def test_chunks_that_don_t_add_up_are_no_file(pair: Any, chunks: list[bytes]) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.GO, 0) + header(Kind.RECEIPT, 0))
    with pytest.raises(SourceChanged):
        send_file_block(ours, Given(3, chunks))
    ours.shutdown(socket.SHUT_WR)
    assert len(everything(theirs)) <= 10 + 16 + 3, "never more than was announced"


def test_a_file_that_can_not_be_stored_is_refused_and_the_reason_gets_through(
    pair: Any, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the full disk: the write fails in the middle."""
    ours, theirs = pair
    (tmp_path / "f").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(DATA) // 2, limits[1]))
    try:
        receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=1 << 30)
        with pytest.raises(FileRefused, match="can't store the file: File too large"):
            send_file_block(ours, Given(len(DATA), chunked(DATA)))
        with pytest.raises(FileRefused, match="File too large"):
            receiver.result()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"old"}


def test_a_file_for_which_there_is_no_room_is_refused_before_its_bytes_travel(
    pair: Any, tmp_path: Path
) -> None:
    ours, theirs = pair
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=1 << 62)
    with pytest.raises(FileRefused, match="no room"):
        send_file_block(ours, Given(1 << 60, []))
    with pytest.raises(FileRefused):
        receiver.result()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_refuses(pair: Any, tmp_path: Path) -> None:
    ours, theirs = pair
    receiver = Aside(write_file_block, theirs, tmp_path / "no" / "f", max_size=10)
    with pytest.raises(FileRefused, match="No such file"):
        send_file_block(ours, Given(3, [b"abc"]))
    with pytest.raises(FileRefused):
        receiver.result()


@pytest.mark.parametrize("sent", [b"", header(Kind.LINE, 5), header(Kind.LINE, 5) + b"hel"])
def test_a_silent_peer_is_not_waited_for_longer_than_allowed(pair: Any, sent: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(sent)
    ours.settimeout(0.1)
    with pytest.raises(TimedOut):
        read_line_block(ours)


def test_a_peer_that_takes_nothing_is_not_waited_for_longer_than_allowed(pair: Any) -> None:
    ours, theirs = pair
    ours.settimeout(0.1)
    theirs.sendall(header(Kind.GO, 0))
    with pytest.raises(TimedOut):
        send_file_block(ours, Given(1 << 23, [b"x" * (1 << 20)] * 8))


def test_a_reset_connection_is_a_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with ours, pytest.raises(ConnectionCut, match="lost"):
            read_line_block(ours)


def test_every_failure_is_one_the_commands_know() -> None:
    assert all(
        issubclass(cls, SocketpoolError) for cls in (ProtocolError, ConnectionCut, FileRefused)
    )


# -- resuming ----------------------------------------------------------------------------------


class CutAfter:
    """A stream that loses its connection after so many bytes of sending."""

    def __init__(self, stream: socket.socket, count: int) -> None:
        self._stream = stream
        self._left = count

    def sendall(self, data: bytes | memoryview) -> None:
        part = bytes(data[: self._left])
        self._stream.sendall(part)
        self._left -= len(part)
        if len(part) < len(data):
            self._stream.shutdown(socket.SHUT_WR)
            raise ConnectionResetError(104, "Connection reset by peer")

    def recv(self, size: int) -> bytes:
        return self._stream.recv(size)


def sent_over(transfer: FileTransfer, target: Path, cut_after: int) -> str | None:
    """One connection of a transfer; the digest, or None when it was cut."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)
        receiver = Aside(write_file_block, theirs, target, max_size=1 << 40)
        try:
            digest = transfer.run(CutAfter(ours, cut_after))
        except ConnectionCut:
            with pytest.raises(ConnectionCut):
                receiver.result()
            return None
        assert receiver.result() == digest
        return digest


@given(st.lists(st.integers(0, 40_000), max_size=12))
def test_a_transfer_cut_anywhere_and_any_number_of_times_ends_with_the_right_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    data = DATA[:100_000]
    folder = tmp_path_factory.mktemp("resume")
    transfer = FileTransfer(Given(len(data), chunked(data, 7_000)), b"i" * 16)
    confirmed = 0
    for cut in cuts:
        if sent_over(transfer, folder / "f", cut) is not None:
            break
        assert transfer.state is TransferState.INTERRUPTED
        assert transfer.confirmed >= confirmed
        confirmed = transfer.confirmed
    else:
        sent_over(transfer, folder / "f", 1 << 30)
    assert transfer.state is TransferState.STORED
    assert (folder / "f").read_bytes() == data
    assert names(folder) == [".f.stored", "f"]
    assert transfer.sent <= len(data) + len(cuts) * 7_000, "only what was in flight is sent twice"


def test_a_partial_file_of_another_transfer_is_never_continued(tmp_path: Path) -> None:
    first = FileTransfer(Given(1000, [b"a" * 1000]), b"1" * 16)
    assert sent_over(first, tmp_path / "f", 500) is None
    second = FileTransfer(Given(1000, [b"b" * 1000]), b"2" * 16)
    sent_over(second, tmp_path / "f", 1 << 20)
    assert (tmp_path / "f").read_bytes() == b"b" * 1000
    assert names(tmp_path) == [".f.stored", "f"]


def test_a_partial_file_that_was_damaged_is_found_out_and_thrown_away(tmp_path: Path) -> None:
    transfer = FileTransfer(Given(1000, [b"a" * 100] * 10), b"1" * 16)
    assert sent_over(transfer, tmp_path / "f", 500) is None
    (part,) = tmp_path.glob(".f.*.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    with pytest.raises(FileRefused, match="damaged"):
        sent_over(transfer, tmp_path / "f", 1 << 20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plain", [True, False], ids=["sendfile", "copied"])
def test_an_open_file_goes_out_the_same_whatever_the_transport(
    pair: Any, tmp_path: Path, plain: bool
) -> None:
    (tmp_path / "source").write_bytes(DATA * 5)
    ours, theirs = pair
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=1 << 30)
    with (tmp_path / "source").open("rb") as file:
        source = OpenFile(file.fileno(), len(DATA) * 5)
        send_file_block(ours if plain else CutAfter(ours, 1 << 40), source)
    receiver.result()
    assert (tmp_path / "f").read_bytes() == DATA * 5


def test_a_source_that_shrinks_while_it_is_sent_is_not_taken_for_the_file(
    pair: Any, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"short")
    ours, theirs = pair
    theirs.sendall(header(Kind.GO, 0))
    with (
        (tmp_path / "source").open("rb") as file,
        pytest.raises(SourceChanged, match="changed while"),
    ):
        send_file_block(ours, OpenFile(file.fileno(), 1000))


def test_every_step_of_a_transfer_is_in_its_table() -> None:
    ends = {TransferState.REFUSED}
    assert {state for state, _ in TRANSFER.table} == set(TransferState) - ends
    assert set(TRANSFER.table.values()) == set(TransferState)


def test_a_refusal_that_is_cut_in_its_middle_is_a_cut(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(header(Kind.REFUSAL, 100) + b"the fi")
    theirs.shutdown(socket.SHUT_WR)
    transfer = FileTransfer(Given(3, [b"abc"]), b"1" * 16)
    with pytest.raises(ConnectionCut):
        transfer.run(ours)
    assert transfer.state is TransferState.INTERRUPTED


def stored(tmp_path: Path) -> FileTransfer:
    """A transfer that has just put ``f`` in place."""
    transfer = FileTransfer(Given(1000, [b"a" * 1000]), b"1" * 16)
    assert sent_over(transfer, tmp_path / "f", 1 << 20) is not None
    return transfer


def test_a_stored_file_that_is_sent_again_does_not_travel_again(tmp_path: Path) -> None:
    """Its sender's session was cut after the receipt, so the step is repeated."""
    transfer = stored(tmp_path)
    before = (tmp_path / "f").stat().st_ino
    assert sent_over(transfer, tmp_path / "f", 1 << 20) == hashlib.sha256(b"a" * 1000).hexdigest()
    assert transfer.state is TransferState.STORED
    assert (transfer.confirmed, transfer.sent) == (1000, 1000)
    assert (tmp_path / "f").stat().st_ino == before


def test_a_lost_receipt_costs_no_byte_of_the_file(tmp_path: Path) -> None:
    """The receiver got everything, digest included, and then the connection ended."""
    ours, theirs = socket.socketpair()
    transfer = FileTransfer(Given(1000, [b"a" * 1000]), b"1" * 16)
    receiver = Aside(write_file_block, theirs, tmp_path / "f", max_size=1000)

    class LosesReceipt(CutAfter):
        def recv(self, size: int) -> bytes:
            data = super().recv(size)
            if data[1:2] == bytes([Kind.RECEIPT]):
                raise ConnectionResetError(104, "Connection reset by peer")
            return data

    with ours, theirs, pytest.raises(ConnectionCut):
        transfer.run(LosesReceipt(ours, 1 << 20))
    receiver.result()
    assert transfer.state is TransferState.INTERRUPTED
    assert sent_over(transfer, tmp_path / "f", 1 << 20) is not None
    assert transfer.sent == 1000


@pytest.mark.parametrize("damage", ["changed", "replaced", "removed", "forgotten"])
def test_a_file_that_is_no_longer_as_it_was_stored_travels_again(
    tmp_path: Path, damage: str
) -> None:
    transfer = stored(tmp_path)
    target = tmp_path / "f"
    match damage:
        case "changed":
            target.write_bytes(b"b" * 999)
        case "replaced":
            (tmp_path / "g").write_bytes(b"b" * 1000)
            (tmp_path / "g").replace(target)
        case "removed":
            target.unlink()
        case "forgotten":
            (tmp_path / ".f.stored").write_bytes(b"")
    assert sent_over(transfer, target, 1 << 20) is not None
    assert transfer.sent == 2000
    assert target.read_bytes() == b"a" * 1000


def test_a_stored_file_that_was_damaged_in_secret_is_found_out(tmp_path: Path) -> None:
    """Same size, same time: the digest tells; the next attempt puts it right."""
    transfer, target = stored(tmp_path), tmp_path / "f"
    was = target.stat()
    with target.open("r+b") as file:
        file.write(b"x")
    os.utime(target, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(FileRefused, match="damaged"):
        sent_over(transfer, target, 1 << 20)
    again = FileTransfer(Given(1000, [b"a" * 1000]), b"1" * 16)
    assert sent_over(again, target, 1 << 20) is not None
    assert target.read_bytes() == b"a" * 1000


def test_a_watched_stream_reports_when_it_is_in_the_middle_of_a_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    reports: list[bool] = []
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "file").open("rb") as file:
        watch_sending(ours, reports.append)
        send_line_block(theirs, "another stream")
        assert reports == []
        send_line_block(ours, "a line")
        assert reports == [True, False]
        assert read_line_block(theirs) == "a line"
        theirs.sendall(header(Kind.REFUSAL, 2) + b"no")
        assert read_line_block(ours) == "another stream"
        with pytest.raises(FileRefused):
            send_file_block(ours, OpenFile(file.fileno(), len(DATA)))
        assert reports[-1] is False
        theirs.sendall(header(Kind.GO, 0))
        theirs.shutdown(socket.SHUT_RD)
        reports.clear()
        with pytest.raises(ConnectionCut):
            send_file_block(ours, OpenFile(file.fileno(), len(DATA)))
        assert reports
        assert all(reports)
