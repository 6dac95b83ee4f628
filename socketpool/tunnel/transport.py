"""paramiko's transport with what OpenSSH would offer, and with errors that say what was offered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import paramiko
from paramiko.kex_curve25519 import KexCurve25519
from paramiko.message import Message
from paramiko.ssh_exception import IncompatiblePeer

from socketpool.errors import ConfigError
from socketpool.tunnel.certificates import CERTIFIED
from socketpool.tunnel.hostkeys import HostKey
from socketpool.tunnel.packets import Packets
from socketpool.tunnel.wire import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from socketpool.tunnel.recognition import Recognition
    from socketpool.tunnel.settings import HostSettings
    from socketpool.tunnel.wire import Wire

CIPHERS = (
    # the fastest first
    *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"),
    *("aes128-ctr", "aes192-ctr", "aes256-ctr"),
)
MACS = (
    *("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com"),
    *("hmac-sha2-256", "hmac-sha2-512", "hmac-sha1"),
)
CURVE25519 = "curve25519-sha256"
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


class SshTransport(paramiko.Transport):
    """An SSH connection whose packets are read by `Packets`."""

    _kex_info = paramiko.Transport._kex_info | {CURVE25519: KexCurve25519}  # type: ignore[attr-defined]
    _preferred_kex: tuple[str, ...] = KEX

    def __init__(self, wire: Wire, host: HostSettings, recognition: Recognition) -> None:
        """Raises ConfigError when the configuration leaves no algorithm."""
        super().__init__(
            wire,  # type: ignore[arg-type]  # anything with these methods will do, its documents say
            default_window_size=WINDOW,
            default_max_packet_size=PACKET,
            packetizer_class=Packets,
        )
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
