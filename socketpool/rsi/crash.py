"""What a client is told of a process that failed: how it ended and where to look, nothing else."""

from __future__ import annotations

import signal

from socketpool.archive.names import show
from socketpool.errors import ServiceCrashed


def how_it_ended(code: int) -> str:
    """An exit code as :mod:`subprocess` gives it, negative for a signal, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


def details_in_log(lease: str) -> str:
    """The next step after a failure whose details stay with the service's operator."""
    return f"its operator finds the details in its log under lease {lease}"


def crash(code: int, member: bytes, lease: str) -> ServiceCrashed:
    """The verdict on a session whose process ended without one; ``member`` may be empty."""
    message, hint = f"the service crashed ({how_it_ended(code)})", details_in_log(lease)
    if not member:
        return ServiceCrashed(message, hint=hint)
    return ServiceCrashed(
        f"{message} while it worked on {show(member)}",
        hint=f"keep that member at home with a rule of your policy and run again; {hint}",
    )
