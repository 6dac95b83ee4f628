"""``socketpool sshd-config``, as roles call it."""

from __future__ import annotations

from click.testing import CliRunner

from socketpool.cli.sshdconfig import sshd_config
from socketpool.tunnel.account import KEY_OPTIONS


def test_the_drop_in_alone_is_on_stdout() -> None:
    result = CliRunner().invoke(sshd_config, ["21000-21001", "--user", "way"])
    assert result.exit_code == 0
    assert "Match User way\n" in result.stdout
    assert "PermitOpen 127.0.0.1:8080 127.0.0.1:21000 127.0.0.1:21001\n" in result.stdout
    assert KEY_OPTIONS not in result.stdout


def test_what_precedes_a_key_is_told_alone() -> None:
    result = CliRunner().invoke(sshd_config, ["21000-21001", "--key-options"])
    assert (result.exit_code, result.output) == (0, KEY_OPTIONS + "\n")
