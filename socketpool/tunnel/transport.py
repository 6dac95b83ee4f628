"""paramiko's transport with what OpenSSH would offer, and with errors that say what was offered."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import paramiko
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.message import Message
from paramiko.ssh_exception import ChannelException, IncompatiblePeer, SSHException

from socketpool.errors import ConfigError
from socketpool.tunnel.certificates import CERTIFIED
from socketpool.tunnel.chacha20 import KEY_BYTES, ChaCha20Poly1305
from socketpool.tunnel.chacha20 import NAME as CHACHA20
from socketpool.tunnel.hostkeys import HostKey
from socketpool.tunnel.packets import Packets
from socketpool.tunnel.wire import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from socketpool.tunnel.hostsettings import HostSettings
    from socketpool.tunnel.recognition import Recognition
    from socketpool.tunnel.wire import Wire

CIPHERS = (
    # the fastest first
    *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"),
    *("aes128-ctr", "aes192-ctr", "aes256-ctr", CHACHA20),
)
MACS = (
    *("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"),
    *("hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"),
)
CURVE25519 = "curve25519-sha256"
CHANNEL_OPEN = b"\x5a"  # RFC 4250, section 4.1.2
ORIGIN = ("127.0.0.1", 0)
ALIVE_CHECK_SECONDS = 0.1
"""How often it is looked whether the connection still stands."""
MAX_REASON = 300
PACKET = 1 << 16
"""Largest packet that we take; with the usual 32 KiB sshd sends a quarter as fast."""

_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
_OFFERS = {
    "key exchange": ("kex_algo_list", "preferred_kex"),
    "host key type": ("server_key_algo_list", "preferred_keys"),
    "cipher": ("client_encrypt_algo_list", "preferred_ciphers"),
    "cipher towards us": ("server_encrypt_algo_list", "preferred_ciphers"),
    "MAC": ("client_mac_algo_list", "preferred_macs"),
    "MAC towards us": ("server_mac_algo_list", "preferred_macs"),
    "compression": ("client_compress_algo_list", "preferred_compression"),
}

# Its errors are raised to us as well; whoever wants them twice may listen.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


_THEIRS: tuple[str, ...] = paramiko.Transport._preferred_kex  # type: ignore[attr-defined]
KEX = (
    *(each for each in _THEIRS if each.startswith("mlkem")),
    CURVE25519,
    *(each for each in _THEIRS if not each.startswith("mlkem")),
)


class _Opening:
    """A channel whose opening the host has not answered yet."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self.done = threading.Event()
        self.code: int | None = None
        self.reason = ""
        self.abandoned = False


class SshTransport(paramiko.Transport):
    """An SSH connection whose packets are read by `Packets`."""

    _kex_info = paramiko.Transport._kex_info | {CURVE25519: KexCurve25519}  # type: ignore[attr-defined]
    _cipher_info = paramiko.Transport._cipher_info | {  # type: ignore[attr-defined]
        CHACHA20: {
            "class": ChaCha20Poly1305,
            "block-size": 8,
            "iv-size": 12,  # as paramiko expects it; the packets' numbers are the nonces
            "key-size": KEY_BYTES,
            "is_aead": True,
        }
    }
    _preferred_kex: tuple[str, ...] = KEX

    def __init__(self, wire: Wire, host: HostSettings, recognition: Recognition) -> None:
        """Raises ConfigError when the configuration leaves no algorithm."""
        super().__init__(
            wire,  # type: ignore[arg-type]  # anything with these methods will do, its documents say
            default_window_size=WINDOW,
            default_max_packet_size=PACKET,
            packetizer_class=Packets,
        )
        self._openings: dict[int, _Opening] = {}
        self._preferred_ciphers = _chosen("Ciphers", host.ciphers, CIPHERS)
        self._preferred_macs = _chosen("MACs", host.macs, MACS)
        self._preferred_kex = _chosen("KexAlgorithms", host.kex, self._preferred_kex)
        self._host_key_types = _host_key_types(
            super().preferred_keys, host.host_key_algorithms, recognition
        )

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Types of host keys: those that are known first, so that the host shows one of these."""
        return self._host_key_types

    server_extensions: dict[str, bytes]
    disconnect_reason = ""
    """What the host said when it closed the connection."""

    @property
    def packets(self) -> Packets:
        """What reads its packets."""
        return cast("Packets", self.packetizer)

    @property
    def shown_key(self) -> HostKey:
        """The key or certificate by which the host identified itself; raises SSHException."""
        key = self.get_remote_server_key()
        if key.public_blob is None:
            return HostKey(key.get_name(), key.asbytes())
        return HostKey(key.public_blob.key_type, key.public_blob.key_blob)

    def open_stream(
        self, kind: str, target: tuple[str, int] | None, seconds: float
    ) -> paramiko.Channel:
        """Open a channel; raises ChannelException with the host's own reason for this one.

        paramiko's own `open_channel` raises what happened last to any channel.  Also raises
        TimeoutError, after which a channel that opens all the same is closed, and SSHException when
        the connection ends.
        """
        inner = cast("Any", self)
        with self.lock:
            number: int = inner._next_channel()
            channel = paramiko.Channel(number)
            opening = self._openings[number] = _Opening(channel)
            inner._channels.put(number, channel)
            self.channels_seen[number] = True
            cast("Any", channel)._set_transport(self)
            cast("Any", channel)._set_window(WINDOW, PACKET)
        message = Message()
        message.add_byte(CHANNEL_OPEN)
        message.add_string(kind)
        for value in (number, WINDOW, PACKET):
            message.add_int(value)
        if target is not None:
            for host, port in (target, ORIGIN):
                message.add_string(host)
                message.add_int(port)
        inner._send_user_message(message)
        deadline = time.monotonic() + seconds
        while not opening.done.wait(ALIVE_CHECK_SECONDS):
            if not self.is_active():
                raise SSHException("the connection ended")
            if time.monotonic() > deadline:
                with self.lock:
                    if not opening.done.is_set():
                        opening.abandoned = True
                        raise TimeoutError(f"no answer within {seconds:g} s")
        if opening.code is not None:
            raise ChannelException(opening.code, opening.reason)
        return channel

    def _parse_channel_open_success(self, m: Message) -> None:
        opening = self._openings.pop(m.get_int(), None)
        m.rewind()
        super()._parse_channel_open_success(m)  # type: ignore[misc]
        if opening is not None:
            with self.lock:
                opening.done.set()
            if opening.abandoned:
                opening.channel.close()

    def _parse_channel_open_failure(self, m: Message) -> None:
        number = m.get_int()
        opening = self._openings.pop(number, None)
        if opening is None:
            m.rewind()
            super()._parse_channel_open_failure(m)  # type: ignore[misc]
        else:
            cast("Any", self)._channels.delete(number)
            opening.code, opening.reason = m.get_int(), m.get_text()
            opening.done.set()

    def _parse_disconnect(self, m: Message) -> None:
        m.get_int()
        self.disconnect_reason = m.get_text()[:MAX_REASON]

    def _parse_kex_init(self, m: Message) -> None:
        offers: dict[str, Any] = self._really_parse_kex_init(Message(m.asbytes()))  # type: ignore[attr-defined]
        try:
            super()._parse_kex_init(m)  # type: ignore[misc]
        except IncompatiblePeer:
            for what, (theirs, ours) in _OFFERS.items():
                here = getattr(self, ours)
                if not set(offers[theirs]) & set(here):
                    raise IncompatiblePeer(
                        f"no {what} in common: it offers {', '.join(offers[theirs])}; "
                        f"here are {', '.join(here)}"
                    ) from None
            raise


def _chosen(name: str, allowed: Sequence[str] | None, ours: Sequence[str]) -> tuple[str, ...]:
    """Those of ours that the configuration allows, in its order; raises ConfigError if none is."""
    if allowed is None:
        return tuple(ours)
    chosen = tuple(each for each in allowed if each in ours)
    if not chosen:
        raise ConfigError(
            f"of the {name} that the ssh_config allows none is supported here: "
            f"{', '.join(allowed)}",
            hint=f"supported are: {', '.join(ours)}",
        )
    return chosen


def _host_key_types(
    offered: Sequence[str], allowed: Sequence[str] | None, recognition: Recognition
) -> tuple[str, ...]:
    types = _chosen("HostKeyAlgorithms", allowed, offered)
    known = [each for kind in recognition.types for each in _SIGNATURES.get(kind, (kind,))]
    certified = [each for each in types if each.endswith(CERTIFIED)]
    first: Iterable[str] = known
    if recognition.expects_certificate:
        first = [*certified, *known]
    first = [each for each in dict.fromkeys(first) if each in types]
    return (*first, *(each for each in types if each not in first))
