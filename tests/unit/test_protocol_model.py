"""A model of the protocol: sessions that are cut, repeated, replayed and damaged in any order.

Whatever happens, the file in place is the one that was there or one that was sent, whole; who is
told that it is in place can rely on that; and at most one unfinished file is beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from socketpool.errors import FileRefused, NotAuthorised, SocketpoolError, TimedOut
from socketpool.protocol.blocks import write_file_block
from socketpool.protocol.frames import ConnectionCut, ProtocolError
from socketpool.protocol.session import (
    await_event,
    errors_of_service,
    greet,
    read_greeting,
    send_error,
    send_event,
)
from socketpool.protocol.transfer import TRANSFER, FileTransfer, TransferEvent, TransferState
from socketpool.rsi.runner.workspace import Workspace
from socketpool.rsi.service import ServiceServer, SessionLimits
from tests.support.aside import Aside

MAX_SIZE = 10_000
TOKEN = "right"
PATIENCE = 0.5
"""Seconds; some damage makes each side wait for the other.  Nothing depends on the number."""


class Source:
    """Bytes in small pieces, which may not be as many as are promised."""

    def __init__(self, data: bytes, promised: int) -> None:
        self.data = data
        self.size = promised

    def segments(self) -> Any:
        return (self.data[i : i + 700] for i in range(0, len(self.data), 700))


@dataclass
class Sending:
    """A transfer and what it is to put in place."""

    transfer: FileTransfer
    identity: bytes
    data: bytes
    promised: int


@dataclass
class Fault:
    """What happens to the bytes of one side."""

    cut_after: int | None = None
    flip: int | None = None


class FaultyStream:
    """A stream on which the fault happens, and which remembers what it sent."""

    def __init__(self, stream: socket.socket, fault: Fault) -> None:
        self.sent = bytearray()
        self._stream = stream
        self._fault = fault

    def sendall(self, data: bytes | memoryview) -> None:
        piece, start, fault = bytearray(data), len(self.sent), self._fault
        if fault.flip is not None and start <= fault.flip < start + len(piece):
            piece[fault.flip - start] ^= 0x10
        if fault.cut_after is not None and start + len(piece) > fault.cut_after:
            self._stream.sendall(piece[: fault.cut_after - start])
            self.sent += piece[: fault.cut_after - start]
            self._stream.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(104, "Connection reset by peer")
        self._stream.sendall(piece)
        self.sent += piece

    def recv(self, size: int) -> bytes:
        return self._stream.recv(size)

    def finish(self) -> None:
        """Send no more, and read to the end."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)
            while self._stream.recv(1 << 16):
                pass


# Most sessions get through the greeting of 27 bytes, and faults are near what matters as often as
# in the middle of the content.
PLACES = st.one_of(st.integers(0, 80), st.integers(0, MAX_SIZE + 100))
NONE = st.just(Fault())
FAULTS = st.one_of(NONE, PLACES.map(Fault), PLACES.map(lambda n: Fault(None, n)))


class Model(RuleBasedStateMachine):
    """One workspace, any number of clients one after the other."""

    transfers = Bundle("transfers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.target = self.folder / "incoming.zip"
        self.in_place: bytes | None = None
        self.count = 0
        self.recordings: list[bytes] = []
        self.ever: set[bytes] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # -- the service ---------------------------------------------------------------------------

    def serve(self, stream: FaultyStream) -> str | SocketpoolError:
        """A session as its process runs it; the digest, or how it ended."""
        model = self

        class Receiver(ServiceServer):
            def transfer(self) -> None:
                self.digest = write_file_block(
                    self.stream, model.target, max_size=MAX_SIZE, progress=model.undisturbed
                )

        try:
            if read_greeting(stream).token != TOKEN:
                raise NotAuthorised("the lease token is not valid")
            send_event(stream, "ready", session_time=60)
            receiver = Receiver(stream, Workspace(self.folder), SessionLimits())
            receiver.run()
            send_event(stream, "done", detail={})
        except ConnectionCut as error:
            return error
        except SocketpoolError as error:
            with contextlib.suppress(ConnectionCut, TimedOut):
                send_error(stream, error)
            return error
        return receiver.digest

    def undisturbed(self, _done: int, _total: int) -> None:
        """In the middle of a transfer."""
        assert self.content() == self.in_place
        assert len(self.parts()) == 1

    def content(self) -> bytes | None:
        return self.target.read_bytes() if self.target.exists() else None

    def parts(self) -> list[Path]:
        return list(self.folder.glob(".*.part"))

    def is_noted(self, sending: Sending) -> bool:
        """Whether the file in place is known to be from this transfer."""
        note = self.folder / ".incoming.zip.stored"
        return note.exists() and note.read_text("latin-1").startswith(sending.identity.hex())

    def session(self, client: Any, ours: Fault, theirs: Fault) -> tuple[Any, Any]:
        """What a client and the service make of one connection."""
        near, far = socket.socketpair()
        with near, far:
            near.settimeout(PATIENCE)
            far.settimeout(PATIENCE)

            def serve_and_close() -> str | SocketpoolError:
                try:
                    return self.serve(FaultyStream(far, theirs))
                finally:
                    far.close()

            service = Aside(serve_and_close)
            stream = FaultyStream(near, ours)
            try:
                told: str | SocketpoolError = client(stream)
            except SocketpoolError as error:
                told = error
            finally:
                near.close()
                service.join()
            made = service.result()
        self.recordings.append(bytes(stream.sent))
        return told, made

    def settle(self, made: str | SocketpoolError) -> None:
        """What may be in place after a session."""
        content = self.content()
        if content != self.in_place:
            assert content in self.ever, "neither the old file nor any that was sent"
            assert isinstance(made, str | ConnectionCut | TimedOut)
        if isinstance(made, str):
            assert content is not None
            assert made == hashlib.sha256(content).hexdigest()
        self.in_place = content

    # -- what clients do -----------------------------------------------------------------------

    @rule(target=transfers, data=st.binary(max_size=200), repeat=st.integers(1, 55))
    def prepare(self, data: bytes, repeat: int) -> Sending:
        return self.prepared(data * repeat, len(data * repeat))

    @rule(
        target=transfers, data=st.binary(max_size=500), promised=st.sampled_from([1, 900, 1 << 63])
    )
    def prepare_what_is_not_as_promised(self, data: bytes, promised: int) -> Sending:
        return self.prepared(data, promised)

    @rule(target=transfers, more=st.integers(1, 99))
    def prepare_too_much(self, more: int) -> Sending:
        return self.prepared(bytes(MAX_SIZE + more), MAX_SIZE + more)

    def prepared(self, data: bytes, promised: int) -> Sending:
        self.count += 1
        if len(data) <= MAX_SIZE:
            self.ever.add(data)
        identity = self.count.to_bytes(16, "big")
        transfer = FileTransfer(Source(data, promised), identity)
        return Sending(transfer, identity, data, promised)

    @rule(sending=transfers, ours=FAULTS, theirs=FAULTS)
    def connect(self, sending: Sending, ours: Fault, theirs: Fault) -> None:
        transfer = sending.transfer
        if not TRANSFER.allows(transfer.state, TransferEvent.AGAIN):
            return
        digests = []

        def client(stream: FaultyStream) -> str:
            greet(stream, TOKEN)
            with errors_of_service():
                digests.append(transfer.run(stream))
            await_event(stream, "done")
            return digests[0]

        old, sent = transfer.state, transfer.sent
        undamaged = ours.flip is None and theirs.flip is None
        in_place = undamaged and self.is_noted(sending)
        told, made = self.session(client, ours, theirs)
        if digests:
            assert transfer.state is TransferState.STORED
            assert self.content() == sending.data
            assert digests == [hashlib.sha256(sending.data).hexdigest()]
        elif isinstance(told, FileRefused):
            assert transfer.state is TransferState.REFUSED
        elif isinstance(told, ConnectionCut | TimedOut):
            assert transfer.state in {TransferState.INTERRUPTED, old}
        elif isinstance(told, ProtocolError):
            assert ours.flip is not None or theirs.flip is not None or made is not None
        if in_place:
            assert transfer.sent == sent, "what was in place travelled again"
        if ours == theirs == Fault() and len(sending.data) == sending.promised <= MAX_SIZE:
            # Nothing happened to this one; at worst a damaged beginning was found out.
            assert digests or isinstance(told, FileRefused | TimedOut), told
        if isinstance(made, FileRefused) and ours.flip is None:
            assert not list(self.folder.glob(f".*{sending.identity.hex()}.part"))
        self.settle(made)

    @rule(ours=FAULTS)
    def show_a_wrong_token(self, ours: Fault) -> None:
        told, made = self.session(lambda stream: greet(stream, "wrong"), ours, Fault())
        assert isinstance(told, SocketpoolError)
        assert isinstance(made, SocketpoolError)
        assert self.content() == self.in_place

    @precondition(lambda self: self.recordings)
    @rule(data=st.data(), at=st.none() | PLACES)
    def replay(self, data: st.DataObject, at: int | None) -> None:
        """The bytes of an earlier session once more, all or some of them."""
        recording = data.draw(st.sampled_from(self.recordings))[:at]
        self.settle(self.session(lambda s: self.all_at_once(s, recording), Fault(), Fault())[1])

    @rule(noise=st.binary(max_size=300))
    def talk_nonsense(self, noise: bytes) -> None:
        def client(stream: FaultyStream) -> str:
            greet(stream, TOKEN)
            return self.all_at_once(stream, noise)

        _, made = self.session(client, Fault(), Fault())
        assert isinstance(made, SocketpoolError)
        assert self.content() == self.in_place

    @staticmethod
    def all_at_once(stream: FaultyStream, data: bytes) -> str:
        with contextlib.suppress(OSError):
            stream.sendall(data)
        stream.finish()
        return ""

    @rule(data=st.binary(max_size=MAX_SIZE * 2))
    def damage_what_is_unfinished(self, data: bytes) -> None:
        for part in self.parts():
            part.write_bytes(data)

    @rule(data=st.binary(max_size=100))
    def damage_the_note(self, data: bytes) -> None:
        (self.folder / ".incoming.zip.stored").write_bytes(data)

    # -- what always holds ---------------------------------------------------------------------

    @invariant()
    def the_old_file_or_a_whole_new_one_is_in_place(self) -> None:
        assert self.content() == self.in_place

    @invariant()
    def at_most_one_unfinished_file_is_beside_it(self) -> None:
        assert len(self.parts()) <= 1
        others = {p.name for p in self.folder.iterdir()} - {p.name for p in self.parts()}
        assert others <= {"incoming.zip", ".incoming.zip.stored", "lock"}


TestProtocol = Model.TestCase
TestProtocol.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
