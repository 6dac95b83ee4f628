"""An SSH destination as users write it: ``[user@]host[:port]``, or a URI.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from socketpool.config.values import check_port
from socketpool.errors import UsageError

# As OpenSSH does since 9.6: neither may look like an option, nor mean anything to a shell.  A user
# may have a domain: ACME\\bob, carol@corp.example.
_USER = re.compile(r"(?![-\s])(?!.*\s-)[^'`\"$;&<>|(){}\x00-\x1f\x7f]{1,128}(?<![\\\s])")
_HOST = re.compile(r"(?!-)[^\s'`\"$\\;&<>|(){},@/\[\]\x00-\x1f\x7f]{1,253}")
_SCHEME = "ssh://"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to go; ``host`` may be an alias of ssh_config, what isn't given is found there."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Raises UsageError; an IPv6 address with a port goes in brackets."""
        user, at, rest = text.removeprefix(_SCHEME).rpartition("@")
        if text.startswith(_SCHEME):  # a URI: what would mean something in it is encoded
            user, rest = unquote(user), rest.removesuffix("/")
        host, port = _split_port(rest)
        if (at and not _USER.fullmatch(user)) or not _HOST.fullmatch(host):
            raise UsageError(
                f"{text!r} is no SSH destination",
                hint="write [user@]host[:port], or an alias of your ssh_config",
            )
        try:
            return cls(host, user or None, None if port is None else check_port(port))
        except ValueError as error:
            raise UsageError(f"{text!r}: {error}") from None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        user = f"{self.user}@" if self.user else ""
        return f"{user}{host}:{self.port}" if self.port else f"{user}{host}"


def _split_port(text: str) -> tuple[str, str | None]:
    if match := re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text):
        return match[1], match[2]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None
