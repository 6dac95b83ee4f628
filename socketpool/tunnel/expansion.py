"""The tokens in the values of ssh_config, as ssh_config(5) lists them under TOKENS.  Pure."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from socketpool.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the tokens stand for."""

    original: str
    hostname: str
    port: int
    user: str
    jump: str
    alias: str
    home: str
    local_user: str

    def values(self) -> dict[str, str]:
        """By their letters; raises nothing."""
        local = socket.gethostname()
        hashed = f"{local}{self.hostname}{self.port}{self.user}{self.jump}"
        return {
            "%": "%",
            "C": hashlib.sha1(hashed.encode(), usedforsecurity=False).hexdigest(),
            "d": self.home,
            "h": self.hostname,
            "i": str(os.getuid()),
            "j": self.jump,
            "k": self.alias,
            "L": local.partition(".")[0],
            "l": local,
            "n": self.original,
            "p": str(self.port),
            "r": self.user,
            "u": self.local_user,
        }


def expand(
    text: str,
    tokens: Tokens,
    *,
    variables: bool = True,
    more: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """``~``, ``%`` tokens and ``${NAME}`` of the environment; raises ConfigError for others.

    Without ``variables`` only the tokens are expanded: the rest is left to a shell.  ``more`` are
    tokens that mean something to one option alone.
    """
    if variables and (text == "~" or text.startswith("~/")):
        text = tokens.home.replace("%", "%%") + text[1:]
    values = tokens.values() | dict(more)

    def one(match: re.Match[str]) -> str:
        if match["variable"] is not None:
            value = os.environ.get(match["variable"])
            if value is None:
                raise ConfigError(f"ssh_config: {text}: {match['variable']} is not set")
            return value
        if match["token"] not in values:
            raise ConfigError(f"ssh_config: {text}: %{match['token']} stands for nothing")
        return values[match["token"]]

    never = "(?!)"
    name = r"[^}]*" if variables else never
    return re.sub(rf"%(?P<token>.?)|\$\{{(?P<variable>{name})\}}", one, text)
