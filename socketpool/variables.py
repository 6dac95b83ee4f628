"""The names of the environment variables that socketpool reads, or sets for programs it runs."""

from __future__ import annotations

from typing import Final

POOL: Final = "SOCKETPOOL_POOL"
"""The pool server: ``IP:PORT``, or ``@PROFILE``."""

POOL_ACCOUNT: Final = "SOCKETPOOL_POOL_ACCOUNT"
"""The account of this machine that runs the pool."""

STATE_DIR: Final = "SOCKETPOOL_STATE_DIR"
"""The directory in which a pool keeps its files."""

TOKEN_FILE: Final = "SOCKETPOOL_TOKEN_FILE"  # noqa: S105 - a name
"""The file that holds the API token."""

LEASE_TOKEN: Final = "SOCKETPOOL_LEASE_TOKEN"  # noqa: S105 - a name
"""The token of a lease, for the client of a single step."""

LEASE: Final = "SOCKETPOOL_LEASE"
"""The id of the lease: set for the program of ``socketpool run`` and for a vendor's program."""
