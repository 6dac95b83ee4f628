"""Where the token of a lease comes from; no error ever shows it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from socketpool.client.leasetoken import find_lease_token, parse_token
from socketpool.errors import ConfigError, NotAuthorised
from socketpool.variables import LEASE_TOKEN

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "WyJsIiwxXQ.c2lnbmF0dXJl"
SERVICE = {"service": "upload", "host": "127.0.0.1", "port": 21000, "url": "tcp://127.0.0.1:21000"}
PRINTED = {"lease": "l", "token": TOKEN, "ttl": 60, "services": [SERVICE]}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEASE_TOKEN, raising=False)


@pytest.mark.parametrize("text", [TOKEN, f"\n{TOKEN}\n", json.dumps(PRINTED)])
def test_it_is_read_alone_or_out_of_what_lease_printed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(text)
    shown = find_lease_token(str(tmp_path / "token"))
    assert shown.token == TOKEN
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert find_lease_token("-") == shown
    monkeypatch.setenv(LEASE_TOKEN, text)
    assert find_lease_token(None) == shown


def test_what_lease_printed_tells_enough_to_renew_it_and_a_token_does_not() -> None:
    lease = parse_token(json.dumps(PRINTED), "somewhere").lease
    assert lease is not None
    assert (lease.id, lease.ttl) == ("l", 60)
    assert parse_token(TOKEN, "somewhere").lease is None


def test_the_file_given_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv(LEASE_TOKEN, "other")
    assert find_lease_token(str(tmp_path / "token")).token == TOKEN


def test_without_any_it_is_not_authorised() -> None:
    with pytest.raises(NotAuthorised, match="no lease token") as caught:
        find_lease_token(None)
    assert "--lease" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        *("", "  \n", "{", "secret " * 200, "secr\x00et", "sécret", "{" * 9999),
        *('{"tokens": 1}', '{"token": "secret"}', json.dumps(PRINTED | {"token": "secret " * 200})),
        json.dumps(PRINTED | {"ttl": "secret"}),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token(text, "somewhere")
    assert caught.value.message.startswith("somewhere: ")
    assert "secr" not in caught.value.message + caught.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        find_lease_token(str(tmp_path / "gone"))
