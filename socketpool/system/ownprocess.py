"""What the kernel holds of this process: signals, descriptors, limits, the tie to its parent.

The launcher of instances imports this module at each start, so it needs little of the standard
library: neither typing nor dataclasses.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # as typing's own, which takes as long to import as all the rest
if TYPE_CHECKING:
    from socketpool.supervision.instancespec import LimitSpec

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

FIRST_DESCRIPTOR = 3
"""Those below are standard input, output and error."""

LIMITS = {
    "memory": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "file_size": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}


def die_with_parent(sig: int) -> None:
    """Ask the kernel for ``sig`` when our parent ends, so that its death leaves no orphan.

    Does nothing where the kernel is not Linux.
    """
    _prctl(PR_SET_PDEATHSIG, int(sig))


def reset_signals() -> None:
    """Give every signal its default disposition and unblock all, as programs expect at their start.

    Dispositions of ignored signals and the mask outlive ``execve``, and Python ignores SIGPIPE and
    SIGXFSZ in every process of its own.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_inherited() -> None:
    """Close every descriptor but standard input, output and error."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not Linux
        numbers = list(range(256))
    for number in numbers:
        if number >= FIRST_DESCRIPTOR:
            try:
                os.close(number)
            except OSError:  # that by which they were listed
                pass


def no_new_privileges() -> None:
    """Give up set-user-id programs for this process and all it starts."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def adopt_descendants() -> None:
    """Become the parent of descendants whose own parent ends, so that none of them is lost."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def limit_resources(limits: LimitSpec) -> None:
    """Apply those limits to this process that the kernel enforces."""
    for name, number in LIMITS.items():
        value: float | None = getattr(limits, name)
        if value is not None:
            _, hard = resource.getrlimit(number)
            bound = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
            resource.setrlimit(number, (bound, bound))


def _prctl(option: int, value: int) -> None:
    """Set an attribute of this process; does nothing where the kernel is not Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
