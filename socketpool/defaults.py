"""The default values and bounds that several parts of socketpool have to agree on.

Each is written here and nowhere else.  The module imports nothing, so that the client, the pure
core and the models of the configuration can all use it.  A value that one module alone knows
stays in that module.
"""

from __future__ import annotations

from typing import Final

MAX_DURATION_SECONDS: Final = 30 * 86400.0
"""Longest duration that a configuration, a lease or a session may have: 30 days."""

START_SECONDS: Final = 20.0
"""How long an instance may take to become ready, unless its service.yml says otherwise."""

SHRINK_AFTER_SECONDS: Final = 300.0
"""How long a peak of use is remembered before the instances it needed are removed."""

PORT_REST_SECONDS: Final = 60.0
"""How long a port that one service gave up is kept from other services."""

SESSION_SECONDS: Final = 600.0
"""Longest session on a service, unless its service.yml says otherwise."""

ARCHIVE_BYTES: Final = 4 << 30
"""Largest archive of a session, either way: 4 GiB, unless its service.yml says otherwise."""

MAX_WAIT_SECONDS: Final = 300.0
"""Longest time for which one request may wait for capacity."""

WAIT_SECONDS: Final = 30.0
"""How long a client waits for capacity unless it is told otherwise."""
