"""One SSH connection, through all its jumps: made, watched, and opened for channels."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from paramiko.ssh_exception import ChannelException, IncompatiblePeer, SSHException

from socketpool.errors import PoolUnreachable
from socketpool.tunnel.channel import TunnelStream
from socketpool.tunnel.failures import ForwardProhibited, HostUnreachable, TargetRefused, TunnelDown
from socketpool.tunnel.identities import Identities
from socketpool.tunnel.recognition import Recognition
from socketpool.tunnel.threads import start, without_signals
from socketpool.tunnel.transport import SshTransport
from socketpool.tunnel.userauth import UserAuth
from socketpool.tunnel.wire import Wire, command_wire, tcp_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import paramiko

    from socketpool.tunnel.hostsettings import HostSettings
    from socketpool.tunnel.identities import AskUser

OPEN_SECONDS = 20.0
_PROHIBITED, _CONNECT_FAILED = 1, 2  # RFC 4254, section 5.1


class Connector:
    """Makes connections to one host, with what was learnt from the earlier ones."""

    def __init__(
        self,
        hosts: Sequence[HostSettings],
        *,
        ask: AskUser,
        note: Callable[[str], None],
        accept_new: bool = False,
    ) -> None:
        self._hosts = [(host, Identities(host, ask)) for host in hosts]
        self._ask = ask
        self._note = note
        self._accept_new = accept_new
        self._warned: set[str] = set()
        self._noted: set[str] = set()
        self._connected_before = False

    @property
    def host(self) -> HostSettings:
        """The destination."""
        return self._hosts[-1][0]

    def connect(self) -> Link:
        """A connection; raises HostUnreachable, HostKeyRefused, LoginRefused or ConfigError."""
        links: list[Link] = []
        try:
            for host, identities in self._hosts:
                self._warn(host)
                recognition = Recognition.of(host)
                before = links[-1] if links else None
                wire = self._wire(host, before)
                links.append(self._log_in(recognition, identities, wire, before))
        except BaseException:
            for link in reversed(links):
                link.close()
            raise
        self._connected_before = True
        return links[-1]

    def _wire(self, host: HostSettings, before: Link | None) -> Wire:
        if before is not None:
            try:
                channel = before.open_channel(host.hostname, host.port)
            except (ForwardProhibited, TargetRefused, TunnelDown) as error:
                raise HostUnreachable(
                    f"{host.given} can't be reached through {before.host.name}: {error.message}",
                    hint=error.hint,
                ) from None
            return Wire(channel)
        if host.proxy_command:
            # Later a program that uses the tunnel may have the terminal.
            return command_wire(host, may_ask=not self._connected_before)
        return tcp_wire(host)

    def _log_in(
        self, recognition: Recognition, identities: Identities, wire: Wire, before: Link | None
    ) -> Link:
        host = recognition.host
        transport = _transport(wire, host, recognition)
        link = Link(host, transport, wire, before)
        try:
            _shake_hands(transport, host)
            wire.ready()
            accepted = recognition.check(
                transport.shown_key, wire.address, accept_new=self._accept_new
            )
            if accepted is not None:
                self._note(
                    f"the key of {accepted.name} was added to {accepted.path}"
                    if accepted.path
                    else f"the key of {accepted.name} is trusted this time; no file remembers it"
                )
            for line in transport.packets.greeting:
                self._note_once(line)
            UserAuth(transport, host, self._note_once).log_in(identities, self._ask)
        except BaseException:
            link.close_last()
            raise
        return link

    def _note_once(self, text: str) -> None:
        """Pass on what a host says, such as its banner, the first time."""
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)

    def _warn(self, host: HostSettings) -> None:
        """Say once what of the configuration is not obeyed."""
        unsaid = [option for option in host.unsupported if option not in self._warned]
        self._warned.update(unsaid)
        if unsaid:
            self._note(
                f"of the ssh_config for {host.given} this is not obeyed: {', '.join(unsaid)}"
            )


def _transport(wire: Wire, host: HostSettings, recognition: Recognition) -> SshTransport:
    try:
        transport = SshTransport(wire, host, recognition)
    except BaseException:
        wire.close()
        raise
    transport.banner_timeout = host.connect_seconds
    transport.handshake_timeout = host.connect_seconds
    transport.channel_timeout = OPEN_SECONDS
    return transport


def _shake_hands(transport: SshTransport, host: HostSettings) -> None:
    done = threading.Event()
    try:
        with without_signals():
            transport.start_client(event=done)
        in_time = done.wait(host.connect_seconds)
        transport.get_remote_server_key()  # raises unless it got so far in time
    except (SSHException, EOFError, OSError) as error:
        raise _no_handshake(transport, host, error, in_time=in_time) from None


def _no_handshake(
    transport: SshTransport, host: HostSettings, error: Exception, *, in_time: bool
) -> HostUnreachable:
    """Why the host and we didn't get to encrypted packets, in words."""
    greeting = " ".join(line for line in transport.packets.greeting if line).strip()
    way = " through its ProxyCommand" if host.proxy_command else ""
    for said, message, hint in _REFUSALS:
        if said in greeting:
            return HostUnreachable(f"{host.name} {message}: it says {greeting!r}", hint=hint)
    if not in_time:
        part = "begun the key exchange" if transport.remote_version else "greeted as sshd does"
        return HostUnreachable(
            f"{host.name} was reached{way} and has not {part} within {host.connect_seconds:g} s",
            hint="the host may be slow or overloaded: ConnectTimeout in ssh_config gives it longer",
        )
    failure = transport.get_exception() or error
    if isinstance(failure, IncompatiblePeer):
        return HostUnreachable(
            f"{host.name} and this side can't agree: {failure}",
            hint="its sshd_config, or the ssh_config here, allows too little",
        )
    if greeting:
        text = f"it says {greeting[:MAX_GREETING]!r}"
    elif transport.remote_version:
        text = transport.disconnect_reason or str(failure) or "it closed the connection"
    else:
        text = "it closed the connection without a word"
    return HostUnreachable(
        f"{host.name} does not answer as an SSH server{way}: {text}",
        hint="is that the port of its sshd? Does it refuse this address (PerSourcePenalties, "
        "hosts.deny), or has it too many connections?",
    )


MAX_GREETING = 300
_REFUSALS = (
    (
        "Exceeded MaxStartups",
        "has too many connections that are logging in",
        "try again in a moment; MaxStartups in its sshd_config allows more",
    ),
    (
        "Not allowed at this time",
        "refuses this address for a while after failed logins",
        "wait some minutes; PerSourcePenalties in its sshd_config says how long",
    ),
)


class Link:
    """An authenticated connection; it ends when the host can't be heard any more."""

    def __init__(
        self,
        host: HostSettings,
        transport: SshTransport,
        wire: Wire,
        before: Link | None,
    ) -> None:
        self.host = host
        self.transport = transport
        self._wire = wire
        self._before = before
        self._packets = transport.packets

    def open(self, host: str, port: int) -> TunnelStream:
        """A stream to a port behind the host.

        Raises ForwardProhibited, TargetRefused, or TunnelDown when the connection is gone.
        """
        return TunnelStream(self.open_channel(host, port))

    def open_channel(self, host: str, port: int) -> paramiko.Channel:
        """The bare channel of such a stream."""
        try:
            return self._open("direct-tcpip", (host, port))
        except ChannelException as error:
            raise self._refusal(host, port, error.code) from None
        except (SSHException, EOFError, OSError) as error:
            if self.is_alive():
                raise PoolUnreachable(
                    f"{host} port {port} behind {self.host.name} did not answer within "
                    f"{OPEN_SECONDS:g} s"
                ) from None
            raise TunnelDown(f"the connection to {self.host.name} was lost ({error})") from None

    def open_session(self) -> paramiko.Channel:
        """A channel for a command or a subsystem; raises what paramiko does, or TimeoutError."""
        return self._open("session", None)

    def _open(self, kind: str, target: tuple[str, int] | None) -> paramiko.Channel:
        channel = self.transport.open_stream(kind, target, OPEN_SECONDS)
        self._packets.attach(channel)
        return channel

    def _refusal(self, host: str, port: int, code: int) -> PoolUnreachable | ForwardProhibited:
        if code == _PROHIBITED:
            return ForwardProhibited(
                f"{self.host.name} does not let this account reach {host} port {port}",
                hint="the sshd_config there needs, for this account: AllowTcpForwarding local, and "
                f"if it has PermitOpen: PermitOpen {host}:{port}",
            )
        if code == _CONNECT_FAILED:
            return TargetRefused(
                f"{self.host.name} was reached, but nothing listens there at {host} port {port}",
                hint="is socketpool_server running there? check the ip and port",
            )
        return TargetRefused(f"{self.host.name} has no room for a stream to {host} port {port}")

    def is_alive(self) -> bool:
        """Whether the connection still stands."""
        return self.transport.is_active()

    def watch(self) -> None:
        """Return when the connection has ended; ends it itself when nothing is heard for long."""
        start("tunnel-probe", self._probe)
        pause = min(self.host.alive_seconds, self.host.patience / 4)
        while self.transport.is_active():
            self.transport.join(pause)
            if time.monotonic() - self._wire.last_heard > self.host.patience:
                self.transport.close()

    def _probe(self) -> None:
        """Have the host say something now and then; whether it does is seen by `watch`."""
        with contextlib.suppress(SSHException, EOFError, OSError):
            while self.transport.is_active():
                self.transport.join(self.host.alive_seconds)
                if self.transport.is_active():
                    self.transport.global_request("keepalive@openssh.com", wait=True)

    def close_last(self) -> None:
        """End the connection to this host alone."""
        with contextlib.suppress(SSHException, EOFError, OSError):
            self.transport.close()
        self._wire.close()
        if self.transport.is_alive():
            self.transport.join(5)

    def close(self) -> None:
        """End it, and those that it went through."""
        self.close_last()
        if self._before is not None:
            self._before.close()
