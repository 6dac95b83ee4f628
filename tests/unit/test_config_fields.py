"""The types that configuration values are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.config.values import (
    Address,
    check_host,
    check_port,
    check_service_name,
    parse_duration,
    parse_size,
)
from socketpool.errors import ConfigError
from socketpool.system.hostfacts import ephemeral_ports, is_loopback, resolve


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1d", 86400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        (7, 7),
        (0.5, 0.5),
        ("42", 42),
        (" 3 s ", 3),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1w", "1h30m", "1e3", "one", True, None, [], "٣s", "1\n2"]
)
def test_what_is_no_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="write 90s, 5m or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("4K", 4096),
        ("10", 10),
        (5, 5),
        ("1MiB", 1 << 20),
        ("0", 0),
    ],
)
def test_a_size_is_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-5", "1.5G", "010", "5T", "5m", True, None, 1.5])
def test_what_is_no_size_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="write 512M or 2G"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("[fe80::1%lo]:1", "fe80::1%lo", 1),
        ("localhost:0", "localhost", 0),
        ("pool.example.org.:65535", "pool.example.org.", 65535),
    ],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "127.0.0.1",
        "::1:8080",
        "[::1]",
        "a:b",
        "127.0.0.1:65536",
        "a b:1",
        "256.1.1.1:80",
        "1.2.3:80",
        "-a:80",
        "a-:80",
        "a..b:80",
        "[x]:",
        "127.0.0.1:+80",
        80,
    ],
)
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"address|port|host name"):
        Address.parse(text)


@given(st.integers(-10, 70000))
def test_a_port_is_a_number_from_1_to_65535(number: int) -> None:
    if 1 <= number <= 65535:
        assert check_port(str(number)) == check_port(number) == number
    else:
        with pytest.raises(ValueError, match="from 1 to 65535"):
            check_port(str(number))


@pytest.mark.parametrize("text", ["", "0", " 80", "80 ", "+80", "8_0", "0x50", "80.0", "٨٠", "a"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port"):
        check_port(text)


def test_a_server_may_ask_for_any_port() -> None:
    assert check_port("0", lowest=0) == 0


@given(st.text(max_size=40))
def test_a_service_name_is_safe_for_supervisor_or_refused(name: str) -> None:
    try:
        check_service_name(name)
    except ValueError:
        return
    assert name
    assert len(name) <= 31
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not name.startswith("-")


@pytest.mark.parametrize(
    "name", ["", "all", "pool-server", "Up", "a_b", "a.b", "-a", "a" * 32, "a\n", "a:b", "a/b", "é"]
)
def test_a_bad_or_reserved_service_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't name a service"):
        check_service_name(name)


@pytest.mark.parametrize("host", ["x" * 64, "a." * 127 + "aa", "999", "1.2.3.4.5", "[::1]", "a/b"])
def test_what_can_t_be_a_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a host name"):
        check_host(host)


def test_a_name_resolves_to_an_address_to_listen_on() -> None:
    assert resolve("localhost") == "127.0.0.1"
    assert resolve("::1") == "::1"


def test_a_name_that_stands_for_nothing_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.invalid"):
        resolve("nowhere.invalid")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback_is_told_from_the_network(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_kernel_s_range_is_known_here() -> None:
    ports = ephemeral_ports()
    assert ports is not None
    assert len(ports) > 100
