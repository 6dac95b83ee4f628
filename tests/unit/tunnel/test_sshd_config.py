"""``socketpool sshd-config``, as roles call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from socketpool.cli.sshdconfig import sshd_config
from socketpool.errors import SocketpoolError
from socketpool.tunnel.account import KEY_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path


def test_the_drop_in_alone_is_on_stdout() -> None:
    result = CliRunner().invoke(sshd_config, ["21000-21001", "--user", "way"])
    assert result.exit_code == 0
    assert "Match User way\n" in result.stdout
    assert "PermitOpen 127.0.0.1:8080 127.0.0.1:21000 127.0.0.1:21001\n" in result.stdout
    assert KEY_OPTIONS not in result.stdout


def test_what_precedes_a_key_is_told_alone() -> None:
    result = CliRunner().invoke(sshd_config, ["21000-21001", "--key-options"])
    assert (result.exit_code, result.output) == (0, KEY_OPTIONS + "\n")


def permitted(*arguments: str) -> list[str]:
    result = CliRunner().invoke(sshd_config, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "PermitOpen" in line]
    return line.split()[1:]


@pytest.mark.parametrize(
    ("pool", "server", "services"),
    [
        ("ports: 21000-21009", ["127.0.0.1:8080"], ["127.0.0.1"]),
        ("services_host: 127.0.0.2\n  ports: 21000-21009", ["127.0.0.1:8080"], ["127.0.0.2"]),
        (
            "listen: localhost:8081\n  ports: 21000-21009",
            ["localhost:8081", "127.0.0.1:8081"],
            ["127.0.0.1"],
        ),
        ("listen: '[::1]:8080'\n  ports: 21000-21009", ["[::1]:8080"], ["[::1]"]),
        (
            "listen: '[::]:8080'\n  ports: 21000-21009",
            ["127.0.0.1:8080", "[::1]:8080"],
            ["127.0.0.1", "[::1]"],
        ),
        ("listen: 0.0.0.0:8080\n  ports: 21000-21009", ["127.0.0.1:8080"], ["127.0.0.1"]),
    ],
)
def test_the_hosts_are_those_that_clients_and_leases_name(
    tmp_path: Path, pool: str, server: list[str], services: list[str]
) -> None:
    (tmp_path / "pool.yml").write_text(f"pool:\n  {pool}\n")
    found = permitted(str(tmp_path / "pool.yml"))
    ports = [f"{host}:{port}" for host in services for port in range(21000, 21010)]
    assert found == server + ports


def test_a_range_goes_with_hosts_that_are_given() -> None:
    found = permitted("21000-21000", "--host", "127.0.0.2", "--services-host", "127.0.0.3")
    assert found == ["127.0.0.2:8080", "127.0.0.3:21000"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["pool.yml", "--host", "127.0.0.1"],
        ["21001-21000"],
        ["--state-dir", "/nowhere"],
        ["pool.yml", "--state-dir", "/nowhere"],
        ["no-such.yml"],
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(sshd_config, arguments)
    assert isinstance(result.exception, SocketpoolError)
    assert result.exception.exit_code == 2
