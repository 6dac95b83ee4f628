"""Packets of AES-GCM and of no cipher, cut into pieces by the network as it likes."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from paramiko.packet import NeedRekeyException
from paramiko.ssh_exception import SSHException

from socketpool.tunnel import wire
from socketpool.tunnel.packets import Packets
from socketpool.tunnel.wire import READ_AHEAD, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from socketpool.tunnel.pipe import Pipe

OPENED, DATA, EOF, CLOSE = 91, 94, 96, 97


class Host:
    """The other end of the wire: it encrypts as sshd does."""

    def __init__(self) -> None:
        self.socket, near = socket.socketpair()
        near.settimeout(0.05)
        self.wire = Wire(near)
        self.packets = Packets(self.wire)
        self._cipher, self._iv = AESGCM(os.urandom(16)), os.urandom(12)
        self.encrypted = False

    def encrypt(self) -> None:
        """From now on."""
        self.packets.set_inbound_cipher(
            self._cipher, 16, None, 16, None, etm=False, aead=True, iv_in=self._iv
        )
        self.encrypted = True

    def packet(self, kind: int, content: bytes = b"", padding: int | None = None) -> bytes:
        payload = bytes([kind]) + content
        size = 16 if self.encrypted else 8
        covered = 1 if self.encrypted else 5
        if padding is None:
            padding = size - (covered + len(payload)) % size
            padding += size if padding < 4 else 0
        body = bytes([padding]) + payload + bytes(padding)
        header = struct.pack(">I", len(body))
        if not self.encrypted:
            return header + body
        count = int.from_bytes(self._iv[4:], "big")
        sealed = self._cipher.encrypt(self._iv, body, header)
        self._iv = self._iv[:4] + ((count + 1) & (1 << 64) - 1).to_bytes(8, "big")
        return header + sealed

    def say(self, *packets: bytes) -> None:
        threading.Thread(target=self.socket.sendall, args=(b"".join(packets),)).start()

    def close(self) -> None:
        self.socket.close()
        self.packets.close()


class Channel:
    """What of a channel is looked at when it is attached."""

    def __init__(self, number: int, *, closed: bool = False) -> None:
        self.lock = threading.Lock()
        self.in_buffer: Pipe
        self.eof_received = self.closed = closed
        self._number = number

    def get_id(self) -> int:
        return self._number


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def attach(host: Host, channel: Channel) -> Pipe:
    host.packets.attach(cast("Any", channel))
    return channel.in_buffer


def number(*values: int) -> bytes:
    return b"".join(struct.pack(">I", value) for value in values)


def data(channel: int, content: bytes) -> bytes:
    return number(channel, len(content)) + content


@pytest.mark.parametrize("encrypted", [True, False])
def test_data_goes_to_its_channel_and_the_rest_to_paramiko(host: Host, encrypted: bool) -> None:
    if encrypted:
        host.encrypt()
    host.say(
        host.packet(OPENED, number(3, 0, 0, 0)),
        host.packet(DATA, data(3, b"some")),
        host.packet(DATA, data(3, b" more")),
        host.packet(DATA, data(4, b"of a channel that nobody opened")),
        host.packet(EOF, number(3)),
    )
    kind, message = host.packets.read_message()
    assert (kind, message.get_int()) == (OPENED, 3)
    pipe = attach(host, Channel(3))
    kind, message = host.packets.read_message()
    assert (kind, message.get_int(), message.get_string()[:2]) == (DATA, 4, b"of")
    assert pipe.read(100) == b"some more"
    kind, message = host.packets.read_message()
    assert (kind, message.asbytes(), message.seqno) == (EOF, number(3), 4)


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_reader_is_woken_with_its_data_and_not_by_the_next_packet(
    host: Host, encrypted: bool
) -> None:
    if encrypted:
        host.encrypt()
    host.say(host.packet(OPENED, number(3, 0, 0, 0)))
    host.packets.read_message()
    pipe = attach(host, Channel(3))

    def read_on() -> None:
        with suppress(EOFError):
            host.packets.read_message()

    answers: list[bytes] = []
    threads = [
        threading.Thread(target=read_on),
        threading.Thread(target=lambda: answers.append(bytes(pipe.read(100)))),
    ]
    for thread in threads:
        thread.start()
    host.say(host.packet(DATA, data(3, b"the answer")))
    threads[1].join(10)
    heard = list(answers)
    pipe.close()
    host.close()
    for thread in threads:
        thread.join()
    assert heard == [b"the answer"]


def test_what_came_before_a_channel_was_attached_is_kept_even_if_it_has_closed(host: Host) -> None:
    host.encrypt()
    for channel in (1, 2):
        host.say(
            host.packet(OPENED, number(channel, 0, 0, 0)),
            host.packet(DATA, data(channel, b"early")),
            host.packet(CLOSE, number(channel)),
        )
        for kind in (OPENED, CLOSE):
            assert host.packets.read_message()[0] == kind
        pipe = attach(host, Channel(channel, closed=True))
        assert (pipe.read(100), pipe.read(100)) == (b"early", b"")
    assert not host.packets._pipes
    assert not host.packets._attached
    assert not host.packets._ended


@given(
    sizes=st.lists(st.integers(0, 70_000), min_size=1, max_size=8),
    cuts=st.lists(st.integers(1, 100_000), min_size=1, max_size=8),
)
def test_however_packets_are_cut_on_their_way_they_arrive_whole(
    sizes: list[int], cuts: list[int]
) -> None:
    host = Host()
    host.encrypt()
    sent = [os.urandom(size) for size in sizes]
    stream = b"".join(
        [
            host.packet(OPENED, number(7, 0, 0, 0)),
            *(host.packet(DATA, data(7, each)) for each in sent),
            host.packet(EOF, number(7)),
        ]
    )

    def trickle() -> None:
        at, turn = 0, 0
        while at < len(stream):
            cut = cuts[turn % len(cuts)]
            host.socket.sendall(stream[at : at + cut])
            at, turn = at + cut, turn + 1

    thread = threading.Thread(target=trickle)
    thread.start()
    assert host.packets.read_message()[0] == OPENED
    pipe = attach(host, Channel(7))
    assert host.packets.read_message()[0] == EOF
    thread.join()
    got = b""
    while len(got) < sum(sizes):
        got += bytes(pipe.read(1 << 14))
    assert got == b"".join(sent)
    host.close()


@pytest.mark.parametrize("at", [4, 20, -1])
def test_a_packet_that_was_changed_on_its_way_is_refused(host: Host, at: int) -> None:
    host.encrypt()
    packet = bytearray(host.packet(EOF, number(1, 2, 3, 4, 5)))
    packet[at] ^= 1
    host.say(bytes(packet))
    with pytest.raises(SSHException, match="changed on its way"):
        host.packets.read_message()


@pytest.mark.parametrize("length", [0, 15, READ_AHEAD, 0xFFFFFFFF])
def test_a_length_that_no_packet_has_is_refused_before_it_is_waited_for(
    host: Host, length: int
) -> None:
    host.encrypt()
    host.say(number(length) + bytes(64))
    with pytest.raises(SSHException, match=f"a packet of {length} bytes"):
        host.packets.read_message()


def test_a_packet_that_says_it_holds_more_than_it_does_is_refused(host: Host) -> None:
    host.encrypt()
    host.say(
        host.packet(OPENED, number(1, 0, 0, 0)),
        host.packet(DATA, number(1, 1000) + b"less"),
        host.packet(EOF, padding=200),
    )
    host.packets.read_message()
    with pytest.raises(SSHException, match="longer than its packet"):
        host.packets.read_message()


def test_a_packet_of_nothing_but_padding_is_refused(host: Host) -> None:
    host.encrypt()
    packet = host.packet(EOF, padding=255)
    host.say(packet)
    host.packets.read_message()
    body = bytes([31]) + bytes(31)
    header = number(len(body))
    host.say(header + host._cipher.encrypt(host._iv, body, header))
    with pytest.raises(SSHException, match="all padding"):
        host.packets.read_message()


def test_the_count_of_nonces_goes_round(host: Host) -> None:
    host._iv = host._iv[:4] + b"\xff" * 8
    host.encrypt()
    host.say(*(host.packet(EOF, number(each)) for each in range(3)))
    assert [host.packets.read_message()[1].get_int() for _ in range(3)] == [0, 1, 2]


def test_new_keys_are_asked_for_in_time_and_waited_for_only_so_long(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Packets, "REKEY_BYTES", 1000)
    monkeypatch.setattr(Packets, "REKEY_BYTES_OVERFLOW_MAX", 1000)
    host.encrypt()
    host.say(
        host.packet(OPENED, number(1, 0, 0, 0)),
        *(host.packet(DATA, data(1, bytes(400))) for _ in range(8)),
    )
    host.packets.read_message()
    pipe = attach(host, Channel(1))
    assert not host.packets.need_rekey()
    with pytest.raises(NeedRekeyException):
        host.packets.read_message()
    assert host.packets.need_rekey()

    def read_on() -> None:
        for _ in range(8):
            with suppress(NeedRekeyException):
                host.packets.read_message()

    with pytest.raises(SSHException, match="no new keys"):
        read_on()
    host.packets.set_outbound_cipher(host._cipher, 16, None, 16, None, aead=True, iv_out=bytes(12))
    host.encrypt()
    assert not host.packets.need_rekey()
    assert pipe.read_ready()


def test_the_end_of_the_wire_is_the_end(host: Host) -> None:
    host.encrypt()
    host.say(host.packet(EOF, number(1))[:-1])
    threading.Timer(0.1, host.socket.shutdown, (socket.SHUT_WR,)).start()
    with pytest.raises(EOFError):
        host.packets.read_message()


def test_who_closes_it_wakes_who_reads(host: Host) -> None:
    host.encrypt()
    threading.Timer(0.1, host.packets.close).start()
    with pytest.raises(EOFError):
        host.packets.read_message()


def test_in_bulk_the_wire_waits_a_little_for_more(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    host.socket.sendall(bytes(1000))
    host.wire.take(1000)
    host.socket.sendall(bytes(1000))
    host.wire.take(1000)
    assert pauses == []
    host.socket.sendall(bytes(50_000))
    host.wire.take(50_000)
    host.socket.sendall(bytes(1000))
    host.wire.take(1000)
    assert pauses == [wire.GATHERING]
