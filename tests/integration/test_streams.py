"""Blocks on streams other than a plain socket: TLS, and a channel of an SSH connection."""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import threading
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import paramiko
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from socketpool.errors import FileRefused, TimedOut
from socketpool.protocol.blocks import (
    read_line_block,
    send_file_block,
    send_line_block,
    write_file_block,
)
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import MAX_LINE_BYTES, ConnectionCut, Stream
from socketpool.protocol.transfer import FileTransfer, TransferState
from tests.support.aside import Aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Ends = contextlib.AbstractContextManager["Link"]

SIZE = 20 << 20
CUT_AT = 8 << 20


class TimedStream(Stream, Protocol):
    """What every stream of these tests also has."""

    def settimeout(self, seconds: float | None, /) -> None: ...


class Link(NamedTuple):
    """Two connected ends."""

    client: TimedStream
    server: TimedStream
    cut: Callable[[], None]
    """Cuts the connection beneath, without a goodbye."""


@contextlib.contextmanager
def wire() -> Iterator[tuple[socket.socket, socket.socket, Callable[[], None]]]:
    """A TCP connection, and how to cut it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far, near.dup() as knife:
        yield near, far, lambda: knife.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of a server that calls itself "service"."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "service")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("service")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "service.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextlib.contextmanager
def tls_link(certificate: Path) -> Iterator[Link]:
    """Both ends of a TLS connection whose server was verified."""
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(certificate)
    of_client = ssl.create_default_context(cafile=str(certificate))
    with wire() as (near, far, cut):
        accepting = Aside(of_server.wrap_socket, far, server_side=True)
        with (
            of_client.wrap_socket(near, server_hostname="service") as client,
            accepting.result() as server,
        ):
            yield Link(client, server, cut)


class AnyTunnel(paramiko.ServerInterface):
    """An SSH server that lets anybody open a direct-tcpip channel."""

    def check_auth_none(self, _username: str) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_direct_tcpip_request(self, *_: object) -> int:
        return OPEN_SUCCEEDED


@contextlib.contextmanager
def ssh_link(_certificate: Path) -> Iterator[Link]:
    """Both ends of a direct-tcpip channel of an SSH connection."""
    with (
        wire() as (near, far, cut),
        contextlib.closing(paramiko.Transport(near)) as client,
        contextlib.closing(paramiko.Transport(far)) as server,
    ):
        server.add_server_key(paramiko.ECDSAKey.generate())
        server.start_server(event=threading.Event(), server=AnyTunnel())
        client.start_client(timeout=30)
        client.auth_none("anybody")
        opened = client.open_channel("direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 2), timeout=30)
        accepted = server.accept(30)
        assert accepted is not None
        # The stubs lack memoryview, which a channel takes as well.
        yield Link(cast("TimedStream", opened), cast("TimedStream", accepted), cut)


@pytest.fixture(params=[tls_link, ssh_link], ids=["tls", "ssh"])
def connect(request: pytest.FixtureRequest, certificate: Path) -> Callable[[], Ends]:
    """Makes a new connection each time it is called."""

    @contextlib.contextmanager
    def link() -> Iterator[Link]:
        with request.param(certificate) as made:
            for end in (made.client, made.server):
                end.settimeout(30)
            yield made

    return link


@pytest.fixture(params=["to the server", "to the client"])
def direction(request: pytest.FixtureRequest) -> Callable[[Link], tuple[Stream, Stream]]:
    """Which end sends and which receives."""
    if request.param == "to the server":
        return lambda link: (link.client, link.server)
    return lambda link: (link.server, link.client)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[OpenFile]:
    with (tmp_path / "source").open("w+b") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        yield OpenFile(file.fileno(), SIZE)


def send_all(stream: Stream, lines: list[str]) -> None:
    for line in lines:
        send_line_block(stream, line)


def same(tmp_path: Path) -> bool:
    return (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_lines_arrive_both_ways(connect: Callable[[], Ends]) -> None:
    lines = ["", "é", "x" * MAX_LINE_BYTES, "last"]
    with connect() as link:
        for ours, theirs in ((link.client, link.server), (link.server, link.client)):
            reader = Aside(lambda end: [read_line_block(end) for _ in lines], theirs)
            send_all(ours, lines)
            assert reader.result() == lines


def test_a_file_arrives_and_lines_after_it(
    connect: Callable[[], Ends],
    direction: Callable[[Link], tuple[Stream, Stream]],
    source: OpenFile,
    tmp_path: Path,
) -> None:
    with connect() as link:
        ours, theirs = direction(link)
        receiver = Aside(write_file_block, theirs, tmp_path / "target", max_size=SIZE)
        assert send_file_block(ours, source) == receiver.result()
        send_line_block(ours, "next")
        assert read_line_block(theirs) == "next"
    assert same(tmp_path)


def test_a_refusal_gets_through(
    connect: Callable[[], Ends], source: OpenFile, tmp_path: Path
) -> None:
    with connect() as link:
        receiver = Aside(write_file_block, link.server, tmp_path / "target", max_size=SIZE - 1)
        with pytest.raises(FileRefused, match="are allowed"):
            send_file_block(link.client, source)
        with pytest.raises(FileRefused):
            receiver.result()


def test_a_transfer_that_is_cut_in_the_middle_goes_on_over_a_new_connection(
    connect: Callable[[], Ends],
    direction: Callable[[Link], tuple[Stream, Stream]],
    source: OpenFile,
    tmp_path: Path,
) -> None:
    (tmp_path / "target").write_bytes(b"old")
    cuts: list[Callable[[], None]] = []

    def cut_once(done: int, _total: int) -> None:
        if done >= CUT_AT and cuts:
            cuts.pop()()

    transfer = FileTransfer(source, b"i" * 16, cut_once)
    with connect() as link:
        cuts.append(link.cut)
        ours, theirs = direction(link)
        receiver = Aside(write_file_block, theirs, tmp_path / "target", max_size=SIZE)
        with pytest.raises(ConnectionCut):
            transfer.run(ours)
        with pytest.raises(ConnectionCut):
            receiver.result()
    assert transfer.state is TransferState.INTERRUPTED
    assert (tmp_path / "target").read_bytes() == b"old"
    with connect() as link:
        ours, theirs = direction(link)
        receiver = Aside(write_file_block, theirs, tmp_path / "target", max_size=SIZE)
        assert transfer.run(ours) == receiver.result()
    assert transfer.confirmed > 0
    assert transfer.sent < SIZE + CUT_AT
    assert same(tmp_path)
    assert not list(tmp_path.glob(".*.part"))


def test_a_reader_learns_of_the_cut(connect: Callable[[], Ends]) -> None:
    with connect() as link:
        reader = Aside(read_line_block, link.server)
        link.cut()
        with pytest.raises(ConnectionCut):
            reader.result()
        with pytest.raises(ConnectionCut):
            read_line_block(link.client)


def test_a_silent_peer_is_not_waited_for_longer_than_allowed(connect: Callable[[], Ends]) -> None:
    with connect() as link:
        link.client.settimeout(0.1)
        with pytest.raises(TimedOut):
            read_line_block(link.client)


def test_a_peer_that_takes_nothing_is_not_waited_for_longer_than_allowed(
    connect: Callable[[], Ends],
) -> None:
    with connect() as link:
        link.client.settimeout(0.1)
        with pytest.raises(TimedOut):
            send_all(link.client, ["x" * MAX_LINE_BYTES] * 1000)
