"""What we rely on in paramiko beyond its documents; a release that changes it fails here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tunnels import HOST, digest_of, send_noise, serving, tunnel_through

from socketpool.tunnel import packets

if TYPE_CHECKING:
    import pytest
    from sshd import SshdMaker


def test_when_it_asks_for_new_keys_is_still_ours_to_say(
    new_sshd: SshdMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send, digest = send_noise(8 << 20)

    def asked() -> bool:
        server = new_sshd.start(f"there{len(caplog.records)}")
        with (
            tunnel_through(server) as tunnel,
            serving(send) as port,
            tunnel.dial(HOST, port) as stream,
        ):
            assert digest_of(stream) == digest
        return any("Rekeying (hit" in record.getMessage() for record in caplog.records)

    with caplog.at_level(logging.DEBUG, logger="paramiko.transport"):
        assert not asked()
        monkeypatch.setattr(packets.Packets, "REKEY_BYTES", 2 << 20)
        assert asked()


def test_the_cipher_that_is_fastest_is_agreed_on_and_an_older_host_is_met(
    new_sshd: SshdMaker,
) -> None:
    with tunnel_through(new_sshd.start("new")) as tunnel:
        assert tunnel.link().transport.local_cipher == "aes128-gcm@openssh.com"
    old = new_sshd.start("old", "Ciphers aes256-ctr\nMACs hmac-sha2-256")
    with tunnel_through(old) as tunnel:
        assert tunnel.link().transport.remote_cipher == "aes256-ctr"
