"""The packets of an SSH connection, read with fewer copies than paramiko makes.

With AES-GCM a packet is decrypted where the wire has it, and what it carries for a channel goes
straight into that channel's `Pipe`; so it is with ChaCha20, which paramiko doesn't have.
Everything else is left to paramiko.
`tests/integration/tunnel/test_paramiko.py` tells when a release of it changes what this rests on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, cast

from cryptography.exceptions import InvalidTag
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

from socketpool.tunnel.chacha20 import ChaCha20Poly1305
from socketpool.tunnel.pipe import Pipe
from socketpool.tunnel.wire import READ_AHEAD

if TYPE_CHECKING:
    import paramiko
    from typing_extensions import Buffer

    from socketpool.tunnel.wire import Wire

IGNORE, CHANNEL_OPENED, CHANNEL_DATA, CHANNEL_CLOSE = 2, 91, 94, 97  # RFC 4250, section 4.1.2
LENGTH_BYTES, TAG_BYTES = 4, 16
MIN_PACKET, MIN_CHACHA = 16, 8  # of AES-GCM and of ChaCha20, one block
MAX_LINE = 8192


class _Engine(Protocol):
    """What decrypts and verifies, as `cryptography` has it."""

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes) -> bytes: ...


class _Sealer:
    """ChaCha20 in the form in which paramiko calls AES-GCM; the length is encrypted too."""

    def __init__(self, cipher: ChaCha20Poly1305, packets: Packets) -> None:
        self._cipher = cipher
        self._packets = packets
        self.length = b""
        """Of the packet that was sealed last, encrypted."""

    def encrypt(self, _nonce: bytes, data: bytes, header: bytes) -> bytes:
        """The packet after its length, with its tag."""
        sealed = self._cipher.seal(self._packets.number_out, header + data)
        self.length = sealed[:LENGTH_BYTES]
        return sealed[LENGTH_BYTES:]


class Packets(Packetizer):
    """Asks for new keys as late as OpenSSH does with AES (RFC 4344, section 3.2), not each 512 MiB.

    While paramiko waits for the keys that it asked for, a channel that the host closes stops it for
    good.  When the host asks, that can't happen; sshd does after 64 GiB or as RekeyLimit says.
    """

    REKEY_BYTES = 1 << 36
    REKEY_PACKETS = 1 << 31

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)  # type: ignore[arg-type]  # as of Transport
        self._wire = wire
        self.greeting: list[str] = []
        """Lines that the host said before its version, as far as they are few and short."""
        self._engine: _Engine | None = None
        self._chacha: ChaCha20Poly1305 | None = None
        self._sealer: _Sealer | None = None
        self._nonce_start, self._nonce_count = b"", 0  # RFC 5647, section 7.1
        self._number = 0
        self.number_out = -1  # the version is no packet
        """The number of the packet that is sent next."""
        self._bytes_left = self.REKEY_BYTES
        self._packets_left = self.REKEY_PACKETS
        self._pipes: dict[int, Pipe] = {}
        self._attached: set[int] = set()
        self._ended: set[int] = set()
        self._fed: set[Pipe] = set()

    def attach(self, channel: paramiko.Channel) -> None:
        """Have a channel that was just opened read from its pipe."""
        number = channel.get_id()
        pipe = self._pipes[number]
        with channel.lock:
            channel.in_buffer = pipe  # type: ignore[assignment]
            if channel.eof_received or channel.closed:
                pipe.close()
        self._attached.add(number)
        if number in self._ended:
            self._forget(number)

    def set_inbound_cipher(self, block_engine: Any, *rest: Any, **named: Any) -> None:
        """From now on packets come encrypted with this."""
        super().set_inbound_cipher(block_engine, *rest, **named)
        self._chacha = block_engine if isinstance(block_engine, ChaCha20Poly1305) else None
        self._engine = block_engine if named["aead"] and self._chacha is None else None
        if self._engine is not None:
            iv: bytes = named["iv_in"]
            self._nonce_start, self._nonce_count = iv[:4], int.from_bytes(iv[4:], "big")
        self._bytes_left, self._packets_left = self.REKEY_BYTES, self.REKEY_PACKETS

    def set_outbound_cipher(self, block_engine: Any, *rest: Any, **named: Any) -> None:
        """From now on packets are sent encrypted with this."""
        if isinstance(block_engine, ChaCha20Poly1305):
            block_engine = self._sealer = _Sealer(block_engine, self)
        else:
            self._sealer = None
        super().set_outbound_cipher(block_engine, *rest, **named)

    def reset_seqno_out(self) -> None:
        """Count the packets that are sent from 0 again."""
        super().reset_seqno_out()
        self.number_out = 0

    def write_all(self, out: Buffer) -> None:
        """Send a packet, or the version; paramiko holds its lock."""
        if self._sealer is not None:
            out = self._sealer.length + memoryview(out)[LENGTH_BYTES:]
        super().write_all(out)
        self.number_out = (self.number_out + 1) & 0xFFFFFFFF

    def readline(self, timeout: float) -> str:
        """A line of what the host says first; raises EOFError, TimeoutError or ValueError."""
        deadline = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise ValueError("it says a line that does not end")
            try:
                more = self._wire.recv(1)
            except TimeoutError:
                if self.closed or time.monotonic() > deadline:
                    raise
                continue
            if not more:
                raise EOFError
            line += more
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        if not text.startswith("SSH-"):
            self.greeting.append(text)
        return text

    def reset_seqno_in(self) -> None:
        """Count the packets from 0 again."""
        super().reset_seqno_in()
        self._number = 0

    def read_message(self) -> tuple[int, Message]:
        """The next packet that is not data of a channel; called by paramiko's thread alone."""
        while True:
            if self._engine is None and self._chacha is None:
                kind, message = super().read_message()
                self._number = message.seqno + 1
                carried = self._carry(kind, message.asbytes())
            else:
                packet, end = self._decrypt()
                kind = packet[1]
                carried = self._carry(kind, packet[2:end])
                if not carried:
                    message = Message(bytes(packet[2:end]))
                    message.seqno = self._number
                self._number = (self._number + 1) & 0xFFFFFFFF
            if not carried:
                self._wake()
                return kind, message
            if self.need_rekey():
                raise NeedRekeyException

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: FBT001, FBT002
        """Exactly ``n`` bytes for paramiko, which reads packets of every cipher but AES-GCM.

        Readers are woken before this waits for the host: its next packet may come much later.
        """
        if self._fed and self._wire.ahead < n:
            self._wake()
        return super().read_all(n, check_rekey)

    def _carry(self, kind: int, content: Buffer) -> bool:
        """Keep the data of a channel; whether it was that."""
        if kind not in {CHANNEL_DATA, CHANNEL_OPENED, CHANNEL_CLOSE}:
            return False
        view = memoryview(content)
        number = int.from_bytes(view[:4], "big")
        if kind == CHANNEL_OPENED:
            # Made before paramiko learns of the channel, so that none of its data is missed.
            self._pipes[number] = Pipe()
        elif kind == CHANNEL_CLOSE:
            self._ended.add(number)
            if number in self._attached:  # else what it has sent is still to be read
                self._forget(number)
        elif (pipe := self._pipes.get(number)) is not None:
            size = int.from_bytes(view[4:8], "big")
            if size > len(view) - 8:
                raise SSHException("data that is longer than its packet")
            pipe.feed(view[8 : 8 + size])
            self._fed.add(pipe)
            return True
        return False

    def _forget(self, number: int) -> None:
        self._pipes.pop(number, None)
        self._attached.discard(number)
        self._ended.discard(number)

    def _decrypt(self) -> tuple[memoryview, int]:
        """A packet, from its padding's length on, and where its padding begins."""
        header = bytes(self._take(LENGTH_BYTES, between=True))
        clear, smallest = header, MIN_PACKET
        if self._chacha is not None:
            clear, smallest = self._chacha.crypt_length(self._number, header), MIN_CHACHA
        length = int.from_bytes(clear, "big")
        if not smallest <= length <= READ_AHEAD - TAG_BYTES:
            raise SSHException(f"a packet of {length} bytes")
        try:
            packet = self._open(header, self._take(length + TAG_BYTES))
        except InvalidTag:
            raise SSHException("a packet that was changed on its way") from None
        end = length - packet[0]
        if end < 2:
            raise SSHException("a packet that is all padding")
        self._count(length + LENGTH_BYTES + TAG_BYTES)
        return memoryview(packet), end

    def _open(self, header: bytes, sealed: memoryview) -> bytes:
        if self._chacha is not None:
            return self._chacha.open(self._number, header, sealed)
        nonce = self._nonce_start + self._nonce_count.to_bytes(8, "big")
        self._nonce_count = (self._nonce_count + 1) & 0xFFFFFFFFFFFFFFFF
        engine = cast("_Engine", self._engine)
        return engine.decrypt(nonce, sealed, header)

    def _take(self, size: int, *, between: bool = False) -> memoryview:
        if self._fed and self._wire.ahead < size:
            self._wake()
        while True:
            try:
                return self._wire.take(size)
            except TimeoutError:
                if self.closed:
                    raise EOFError from None
                if between and self.need_rekey():
                    raise NeedRekeyException from None
            except OSError:
                if self.closed:
                    raise EOFError from None
                raise

    def _wake(self) -> None:
        """Tell the readers, once for all that was read ahead: each change of threads costs."""
        for pipe in self._fed:
            pipe.wake()
        self._fed.clear()

    def _count(self, size: int) -> None:
        """Ask for new keys in time; raises SSHException when they don't come."""
        self._bytes_left -= size
        self._packets_left -= 1
        if self._bytes_left > 0 and self._packets_left > 0:
            return
        if self.need_rekey():
            raise SSHException("the host gives no new keys")
        self._bytes_left = self.REKEY_BYTES_OVERFLOW_MAX
        self._packets_left = self.REKEY_PACKETS_OVERFLOW_MAX
        self._trigger_rekey()  # type: ignore[attr-defined]  # as Packetizer does itself
