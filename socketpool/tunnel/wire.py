"""The stream beneath an SSH connection: TCP, a proxy command, or a channel of another connection.

Reading ahead makes one system call of many packets, and tells when the host was last heard.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from socketpool.tunnel.failures import HostUnreachable
from socketpool.tunnel.terminal import lend_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.hostsettings import HostSettings

READ_AHEAD = 1 << 20
BULK = 32 << 10
GATHERING = 0.0005
"""After a read of so many bytes, so many seconds pass before the next: several packets are taken in
then before threads change, which saves a third of the CPU of a download."""
WINDOW = 16 << 20
"""Bytes of a channel that the host may send before we have taken them: 50 ms at 320 MB/s."""
KEEPALIVE_PROBES = 3
PROXY_SECONDS = 5.0
"""So long a ProxyCommand may take to end."""

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}


class Carrier(Protocol):
    """What a wire may be made of: a socket or a channel."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


class Wire:
    """Bytes to and from an SSH server, in the form that `paramiko.Transport` asks for."""

    def __init__(
        self,
        carrier: Carrier,
        on_close: Callable[[], None] | None = None,
        address: str | None = None,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        """The IP address that is connected to, where that is the host itself."""
        self._carrier = carrier
        self._on_close = on_close
        self._on_ready = on_ready
        self._buffer = memoryview(bytearray(READ_AHEAD))
        self._start = self._end = 0  # of what was read ahead
        self._in_bulk = False
        self._closed = False  # paramiko looks for it, as sockets have it
        self.last_heard = time.monotonic()

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        if self._start == self._end:
            self._fill()
        data = bytes(self._buffer[self._start : min(self._start + size, self._end)])
        self._start += len(data)
        return data

    @property
    def ahead(self) -> int:
        """So many bytes can be taken at once."""
        return self._end - self._start

    def take(self, size: int) -> memoryview:
        """Exactly so many bytes, at most READ_AHEAD; they stay until the next call.

        Raises EOFError at the end, and what the carrier raises; what has come is kept then.
        """
        while self._end - self._start < size:
            if self._start + size > len(self._buffer):
                left = self._end - self._start
                self._buffer[:left] = self._buffer[self._start : self._end]
                self._start, self._end = 0, left
            if not self._fill():
                raise EOFError
        self._start += size
        return self._buffer[self._start - size : self._start]

    def _fill(self) -> int:
        """Read some more, always into the same memory: new memory costs as much as reading."""
        if self._start == self._end:
            self._start = self._end = 0
        if self._in_bulk:
            time.sleep(GATHERING)
        room = self._buffer[self._end :]
        if isinstance(self._carrier, socket.socket):
            count = self._carrier.recv_into(room)
        else:
            data = self._carrier.recv(len(room))
            count = len(data)
            room[:count] = data
        self._in_bulk = BULK <= count < len(room)
        self._end += count
        self.last_heard = time.monotonic()
        return count

    def send(self, data: bytes) -> int:
        """Some of the data; returns how much."""
        return self._carrier.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """Bound each call."""
        self._carrier.settimeout(seconds)

    def ready(self) -> None:
        """The host has answered: nothing on the way there has to ask the user any more."""
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready()

    def close(self) -> None:
        """End it, and what it went through."""
        if not self._closed:
            self._closed = True
            self.ready()
            with contextlib.suppress(OSError, EOFError):
                self._carrier.close()
            if self._on_close is not None:
                self._on_close()


def tcp_wire(host: HostSettings) -> Wire:
    """A TCP connection to the host; raises HostUnreachable with the reason in words."""
    family = _FAMILIES.get(host.address_family, socket.AF_UNSPEC)
    try:
        found = socket.getaddrinfo(host.hostname, host.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise HostUnreachable(
            f"{host.hostname!r} can't be resolved",
            hint="check the name; it is neither in the DNS nor an alias of your ssh_config",
        ) from None
    failure: OSError = OSError("no address")
    for kind, _, _, _, address in found:
        stream = socket.socket(kind, socket.SOCK_STREAM)
        try:
            _watch(stream, host)
            _bind(stream, host)
            stream.settimeout(host.connect_seconds)
            stream.connect(address)
        except OSError as error:
            stream.close()
            failure = error
        else:
            return Wire(stream, address=str(address[0]))
    raise _unreachable(host, failure)


def _watch(stream: socket.socket, host: HostSettings) -> None:
    """Have the kernel notice a peer that is gone, in about the time that we allow."""
    seconds = max(1, int(host.alive_seconds))
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1000, int(host.patience * 1000))),
    ):
        stream.setsockopt(level, option, value)


def _bind(stream: socket.socket, host: HostSettings) -> None:
    """Leave from the address and the interface that the configuration names."""
    if host.bind_interface:
        name = host.bind_interface.encode()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
    if host.bind_address:
        found = socket.getaddrinfo(host.bind_address, 0, stream.family, socket.SOCK_STREAM)
        stream.bind(found[0][4])


def _unreachable(host: HostSettings, error: OSError) -> HostUnreachable:
    where = f"{host.hostname} port {host.port}"
    if isinstance(error, ConnectionRefusedError):
        return HostUnreachable(
            f"no sshd listens at {where}", hint="check the port; is sshd running there?"
        )
    if isinstance(error, TimeoutError):
        return HostUnreachable(
            f"{where} did not answer within {host.connect_seconds:g} s",
            hint="check the address and any firewall on the way",
        )
    reason = error.strerror or str(error)
    return HostUnreachable(
        f"no route to {where}: {reason}", hint="check the address and this machine's network"
    )


def command_wire(host: HostSettings, *, may_ask: bool) -> Wire:
    """What the host's ProxyCommand leads to; the user's shell runs it, as with ssh.

    It has a process group of its own: Ctrl-C at the terminal is for the program that uses the
    tunnel.  With ``may_ask`` it has the terminal until the host has answered.
    """
    ours, theirs = socket.socketpair()
    shell = os.environ.get("SHELL") or "/bin/sh"
    with theirs:
        try:
            process = subprocess.Popen(
                [shell, "-c", f"exec {host.proxy_command.removeprefix('exec ')}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise HostUnreachable(
                f"the ProxyCommand of {host.given} can't be run: {shell}: {error.strerror}",
                hint="the shell that SHELL names runs it",
            ) from None

    def end() -> None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(PROXY_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()

    take_back = lend_terminal(process.pid) if may_ask else None
    return Wire(ours, end, on_ready=take_back)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
