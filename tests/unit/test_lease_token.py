"""Where the token of a lease comes from; no error ever shows it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from socketpool.client.leasetoken import ENVIRONMENT, find_lease_token, parse_token
from socketpool.errors import ConfigError, NotAuthorised

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "WyJsIiwxXQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)


@pytest.mark.parametrize("text", [TOKEN, f"\n{TOKEN}\n", json.dumps({"token": TOKEN, "ttl": 60})])
def test_it_is_read_alone_or_out_of_what_lease_printed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(text)
    assert find_lease_token(str(tmp_path / "token")) == TOKEN
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert find_lease_token("-") == TOKEN
    monkeypatch.setenv(ENVIRONMENT, text)
    assert find_lease_token(None) == TOKEN


def test_the_file_given_comes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv(ENVIRONMENT, "other")
    assert find_lease_token(str(tmp_path / "token")) == TOKEN


def test_without_any_it_is_not_authorised() -> None:
    with pytest.raises(NotAuthorised, match="no lease token") as caught:
        find_lease_token(None)
    assert "--lease" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "  \n", "{", '{"tokens": 1}', "secret " * 200, "secr\x00et", "sécret", "{" * 9999]
)
def test_what_is_no_token_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_token(text, "somewhere")
    assert caught.value.message.startswith("somewhere: ")
    assert "secr" not in caught.value.message + caught.value.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        find_lease_token(str(tmp_path / "gone"))
