"""The values that configuration and command lines are made of: durations, sizes, names, addresses.

Nothing here imports pydantic, which takes longer than many a command: `socketpool.config.fields`
has the same values as types of its models.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from socketpool.core.ports import HIGHEST_PORT

SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

RESERVED_NAMES = frozenset({"all", "pool-server"})
"""Names that no service may have, because supervisorctl gives them a meaning of its own."""

EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
"""Hosts that stand for every address of a machine."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SIZE = (1 << 62) - 1
"""Largest size that any file may name, in bytes."""

_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_duration(value: object) -> float:
    """``"90s"``, ``"5m"``, ``"1h"`` or a plain number of seconds, as seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(ms|s|m|h|d)?\s*", str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write 90s, 5m or 1h")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_size(value: object) -> int:
    """``"512M"``, ``"2G"`` or a plain number of bytes, as bytes.

    Zero is a size; a caller that wants one above zero, and at most `MAX_SIZE`, checks that itself.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # YAML reads a number with a leading zero as octal: as text it is refused, not read as decimal.
    match = re.fullmatch(r"\s*(0|[1-9][0-9]{0,14})\s*([KMG]?)(?:i?B)?\s*", str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a size; write 512M or 2G")
    return int(match[1]) * _BYTES[match[2]]


def check_service_name(name: str) -> str:
    """Raise ValueError unless the name can be a service's (and thus a supervisor program's)."""
    if SERVICE_NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} can't name a service: use lower-case letters, digits and -, "
            "31 characters at most, starting with a letter or digit"
        )
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is reserved and can't name a service")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host (IPv4, IPv6 or name) and a port; port 0 lets the server pick one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Address:
        """``host:port`` or ``[ipv6]:port``; raises ValueError."""
        if isinstance(text, Address):
            return text
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", str(text).strip())
        if match is None:
            raise ValueError(f"{text!r} is not an address; write 127.0.0.1:8080 or [::1]:8080")
        return cls(host=check_host(match[1] or match[2]), port=check_port(match[3], lowest=0))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_host(host: str) -> str:
    """Raise ValueError unless the text is an IP address or could be a host name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        numeric = all(label.isdigit() for label in labels)
        sound = all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels)
        if numeric or not sound or len(host) > 253:
            raise ValueError(f"{host!r} is neither an IP address nor a host name") from None
    return host


def check_port(text: str | int, *, lowest: int = 1) -> int:
    """Raise ValueError unless the text is a port number from ``lowest`` to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", str(text)) or not lowest <= int(text) <= HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a port; expected a number from {lowest} to 65535")
    return int(text)


DEFAULT_URL = "tcp://{host}:{port}"
"""The form of a service's URL when its service.yml has none."""


def check_url(form: str) -> str:
    """Raise ValueError unless the text is a URL with ``{host}`` and ``{port}`` to be filled in."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]{1,500}", form):
        raise ValueError(f"{form!r} is not a URL; write it as redis://{{host}}:{{port}}/0")
    words = re.findall(r"\{([^{}]*)\}", form)
    if set(words) != {"host", "port"} or form.count("{") + form.count("}") != 2 * len(words):
        raise ValueError(f"{form!r}: a URL has the placeholders {{host}} and {{port}}, no others")
    return form


DEFAULT_POOL = Address(host="127.0.0.1", port=8080)
"""The address at which a pool server listens by default."""
