"""How large an archive and its members may be.

The client uses the defaults, which only stop what can't be honest; a server passes stricter ones
for what arrives.  The limits on members' contents apply to what comes from the other side, never
to what a user's own archive holds.
"""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20
GIB = 1 << 30


class Limits(NamedTuple):
    """Upper bounds; each is checked before the memory or disk it stands for is used."""

    members: int = 5_000_000
    name_bytes: int = 65_535
    directory_bytes: int = 2 * GIB
    member_bytes: int = 16 * GIB
    total_bytes: int = 64 * GIB
    ratio: int = 250
    """Expanded bytes for each packed byte; deflate can reach 1032."""
    ratio_floor: int = 4 * MIB
    """A member that expands to less is not judged by its ratio: a blank page packs well."""


DEFAULT_LIMITS = Limits()

SERVER_LIMITS = Limits(
    members=200_000,
    name_bytes=4_096,
    directory_bytes=64 * MIB,
    member_bytes=GIB,
    total_bytes=4 * GIB,
)
"""A server's defaults for what arrives; its configuration may replace any of them."""
