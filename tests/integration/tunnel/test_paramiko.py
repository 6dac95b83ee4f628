"""What we rely on in paramiko beyond its documents; a release that changes it fails here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import paramiko
import pytest

from socketpool.tunnel import packets
from socketpool.tunnel.pipe import Pipe
from socketpool.tunnel.wire import WINDOW
from tests.support.tunnels import HOST, digest_of, send_noise, serving, tunnel_through
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.sshd import SshdMaker


def test_when_it_asks_for_new_keys_is_still_ours_to_say(
    new_sshd: SshdMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send, digest = send_noise(8 << 20)

    def asked() -> bool:
        caplog.clear()
        server = new_sshd.start(f"there{packets.Packets.REKEY_BYTES}")
        with (
            tunnel_through(server) as tunnel,
            serving(send) as port,
            tunnel.dial(HOST, port) as stream,
        ):
            assert digest_of(stream) == digest
        said = [record.getMessage() for record in caplog.records]
        return said.count("=== End of kex handshake ===") > 1

    with caplog.at_level(logging.DEBUG, logger="paramiko.transport"):
        assert not asked()
        monkeypatch.setattr(packets.Packets, "REKEY_BYTES", 2 << 20)
        assert asked()


@pytest.mark.parametrize("options", ["", "Ciphers aes128-ctr"])
def test_data_goes_past_its_buffers_and_its_windows_are_kept_open_all_the_same(
    new_sshd: SshdMaker, options: str
) -> None:
    """Through more than one window of a channel, and none of what has ended is kept."""
    send, digest = send_noise(2 * WINDOW)
    with tunnel_through(new_sshd.start("there", options)) as tunnel, serving(send) as port:
        with tunnel.dial(HOST, port) as stream:
            assert isinstance(stream._channel.in_buffer, Pipe)
            assert digest_of(stream) == digest
        session = tunnel.link().open_session()
        session.invoke_subsystem("sftp")
        assert paramiko.SFTPClient(session).normalize(".").startswith("/")
        session.close()
        reader = cast("packets.Packets", tunnel.link().transport.packetizer)
        eventually(lambda: not reader._pipes, "their ends")


def test_the_cipher_that_is_fastest_is_agreed_on_and_an_older_host_is_met(
    new_sshd: SshdMaker,
) -> None:
    with tunnel_through(new_sshd.start("new")) as tunnel:
        assert tunnel.link().transport.local_cipher == "aes128-gcm@openssh.com"
    old = new_sshd.start("old", "Ciphers aes256-ctr\nMACs hmac-sha2-256")
    with tunnel_through(old) as tunnel:
        transport = cast("Any", tunnel.link().transport)  # its stubs lack the attribute
        assert transport.remote_cipher == "aes256-ctr"
