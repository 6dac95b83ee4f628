"""The environment variables by which a program finds its leased services."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.client.answers import LeasedService, parse_record
from socketpool.client.environment import fill_url, lease_environment, variable_prefixes
from socketpool.config.values import SERVICE_NAME, check_url
from socketpool.errors import UsageError


def place(service: str, port: int, **more: str) -> LeasedService:
    return parse_record(
        LeasedService,
        {"service": service, "host": "127.0.0.1", "port": port, "instance": ""} | more,
    )


def test_each_service_is_named_by_host_port_and_url() -> None:
    redis = place("redis", 21007, url="redis://{host}:{port}/0")
    assert lease_environment("abc", [redis, place("web-site", 21008)]) == {
        "SOCKETPOOL_LEASE": "abc",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": "21007",
        "REDIS_URL": "redis://127.0.0.1:21007/0",
        "WEB_SITE_HOST": "127.0.0.1",
        "WEB_SITE_PORT": "21008",
        "WEB_SITE_URL": "tcp://127.0.0.1:21008",
    }


def test_more_instances_of_one_service_are_numbered() -> None:
    found = lease_environment("abc", [place("redis", port) for port in (21001, 21002, 21003)])
    assert [found[f"REDIS{n}_PORT"] for n in ("", "_2", "_3")] == ["21001", "21002", "21003"]


def test_services_whose_variables_would_be_the_same_are_refused() -> None:
    with pytest.raises(UsageError, match="REDIS_2_HOST"):
        variable_prefixes(["redis", "redis", "redis-2"])
    assert variable_prefixes(["redis", "redis-2"]) == ["REDIS", "REDIS_2"]


@given(st.lists(st.from_regex(SERVICE_NAME, fullmatch=True), min_size=1, max_size=6))
def test_every_service_has_variables_of_its_own_that_a_shell_can_name(names: list[str]) -> None:
    try:
        prefixes = variable_prefixes(names)
    except UsageError:
        return
    assert len(set(prefixes)) == len(names)
    assert all(prefix.isidentifier() and prefix.isascii() for prefix in prefixes)


def test_an_ipv6_address_is_bracketed_in_a_url_only() -> None:
    assert fill_url("redis://{host}:{port}/0", "::1", 21000) == "redis://[::1]:21000/0"
    assert lease_environment("a", [place("web", 21000, host="::1")])["WEB_HOST"] == "::1"


@pytest.mark.parametrize(
    "form",
    [
        "{host}:{port}",
        "redis://{host}",
        "redis://{host}:{port}/{workspace}",
        "redis://{host}:{port}/{",
        "redis://{host}:{port}/a b",
        "redis://{host}:{port}/\n",
        "redis://{host}:{port}/" + "x" * 500,
    ],
)
def test_what_is_no_url_with_both_placeholders_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match=r"URL"):
        check_url(form)
    with pytest.raises(ValueError, match=r"URL"):
        place("web", 21000, url=form)


def test_urls_of_other_forms_are_fine() -> None:
    assert check_url("jdbc:postgresql://{host}:{port}/postgres?user=postgres")
