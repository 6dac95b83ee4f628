"""What supervisord runs for every instance: prepare the process, then become the program.

Runs as a script under ``python -I -S``; what it imports is small and needs little of the standard
library, so that it costs a few milliseconds: every instance's restart waits for it.
``launch.py <service.json> <port>``; with the pool server's process id as a third argument it
becomes the program by which the service is probed instead.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # with -I and -S nothing but the standard library is on the path
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from socketpool.supervision.instancespec import InstanceSpec, SpecRefused, fill
from socketpool.system.ownprocess import (
    close_inherited,
    die_with_parent,
    limit_resources,
    no_new_privileges,
    reset_signals,
)
from socketpool.system.wiping import wipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})
INHERITED_PREFIXES = ("LC_", "SUPERVISOR_")


def end_with_supervisord(pid_file: str) -> None:
    """Have the kernel end this process when supervisord does; exit if it already has.

    The kernel only watches the parent that we have by now, so look whether that is supervisord.
    """
    die_with_parent(signal.SIGKILL)
    if os.getppid() != _number_in(pid_file):
        sys.exit("supervisord has ended")


def _number_in(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def main(spec_path: str, port: str, probing: str = "") -> NoReturn:
    """Become the program that the specification names, or with ``probing`` the probe of it."""
    try:
        spec = InstanceSpec.read(spec_path)
    except SpecRefused as error:
        sys.exit(str(error))
    if probing:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != int(probing):
            sys.exit("the pool server has ended")
    else:
        end_with_supervisord(spec.supervisord_pid)
    no_new_privileges()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }
    scratch = f"{spec.scratch}/{port}"
    values = {**spec.values, "port": port, "workspace": scratch}
    if spec.own_workspace:
        if not probing:
            wipe(scratch)
            os.makedirs(scratch, mode=0o700)
        limit_resources(spec.limits)
        os.chdir(scratch)
    if spec.notify and not probing:
        environment["NOTIFY_SOCKET"] = spec.notify
    for name, value in spec.environment.items():
        environment[name] = fill(value, values)
    argv = [fill(argument, values) for argument in (spec.probe or [] if probing else spec.argv)]
    reset_signals()
    close_inherited()
    try:
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        hint = "; install it" if isinstance(error, FileNotFoundError) else ""
        sys.exit(f"can't run {argv[0]!r}: {error.strerror}{hint}")


if __name__ == "__main__":
    main(*sys.argv[1:])
