"""SSH destinations as users write them, and the tokens of ssh_config."""

from __future__ import annotations

import hashlib
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socketpool.config.destination import Destination
from socketpool.errors import ConfigError, UsageError
from socketpool.tunnel.expansion import Tokens, expand

TOKENS = Tokens(
    original="acme",
    hostname="acme.example",
    port=2222,
    user="deploy",
    jump="",
    alias="acme-key",
    home="/home/100% me",
    local_user="me",
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("host", ("host", None, None)),
        ("me@host", ("host", "me", None)),
        ("me@host:2222", ("host", "me", 2222)),
        ("ssh://me@host:22", ("host", "me", 22)),
        ("ssh://host:2222/", ("host", None, 2222)),
        ("ssh://carol%40corp@host", ("host", "carol@corp", None)),
        ("carol%40corp@host", ("host", "carol%40corp", None)),
        ("carol@corp.example@host", ("host", "carol@corp.example", None)),
        ("ACME\\bob@host:22", ("host", "ACME\\bob", 22)),
        ("Bob Smith@host", ("host", "Bob Smith", None)),
        ("[::1]:2222", ("::1", None, 2222)),
        ("me@[fe80::1]", ("fe80::1", "me", None)),
        ("::1", ("::1", None, None)),
        ("an_alias-2", ("an_alias-2", None, None)),
    ],
)
def test_a_destination_is_taken_apart(text: str, parts: tuple[str, str | None, int | None]) -> None:
    found = Destination.parse(text)
    assert (found.host, found.user, found.port) == parts
    assert Destination.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "@host", "-oProxyCommand=x", "a@-F/tmp/x", "-l@host", "ho st", "host:", "host:0"),
        *("host:x", "$(id)@host", "`id`", "host;id", "a@host/x", "a'b", "host\n", "\\@h", "a,b"),
        *("host:99999", "ssh://host/path", "ssh://%2doProxyCommand@host", "a -b@host", " a@host"),
        *("ssh://a%0ab@host", "ssh://a%27@host"),
    ],
)
def test_what_could_be_an_option_or_a_command_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        Destination.parse(text)


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_of_ssh(text: str) -> None:
    try:
        found = Destination.parse(text)
    except UsageError:
        return
    assert not found.host.startswith("-")
    assert not (found.user or "").startswith("-")
    assert not set(found.host) & set(" ;&|$`\"'\\<>(){}\n\0")


def test_tokens_stand_for_what_ssh_config_says() -> None:
    local = socket.gethostname()
    hashed = hashlib.sha1(f"{local}acme.example2222deploy".encode()).hexdigest()
    text = expand("%% %h %n %p %r %u %k %L %l %d %i %j|%C", TOKENS)
    assert text == (
        f"% acme.example acme 2222 deploy me acme-key {local.partition('.')[0]} {local} "
        f"/home/100% me {os.getuid()} |{hashed}"
    )


def test_the_home_and_the_environment_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/keys/%h")
    assert expand("~/.ssh/id", TOKENS) == "/home/100% me/.ssh/id"
    assert expand("~", TOKENS) == "/home/100% me"
    assert expand("${KEYS}/id-%n", TOKENS) == "/keys/%h/id-acme"  # what is put in stays as it is


@pytest.mark.parametrize("text", ["%y", "100%", "${NO_SUCH_VARIABLE_HERE}"])
def test_what_stands_for_nothing_is_said_to(text: str) -> None:
    with pytest.raises(ConfigError, match="ssh_config"):
        expand(text, TOKENS)
