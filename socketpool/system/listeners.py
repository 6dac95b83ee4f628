"""Which process listens on which port, from the kernel's tables, read once for all instances.

Asking for each instance on its own costs a millisecond and more, which a pool of hundreds can't
afford several times a second.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socketpool.system.sockettable import PROC, listening_sockets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Set
    from pathlib import Path

MAX_DESCENDANTS = 1000

_NOT_SHOWN = (FileNotFoundError, ProcessLookupError, PermissionError)
"""The process has ended, or is another account's.  Any other error, such as that we are out of
descriptors, says nothing about the process and must not be taken for news of it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A listener on a port of the pool that is none of its instances.

    ``pid`` is 0 and ``program`` empty where the kernel doesn't tell this account.
    """

    port: int
    pid: int = 0
    program: str = ""


class Listeners:
    """Every listening TCP socket at one moment.

    Making one, and asking it about processes, raises OSError when the kernel can't be asked now.
    """

    def __init__(self) -> None:
        self._inodes: dict[int, set[str]] = {}
        for row in listening_sockets():
            self._inodes.setdefault(row.port, set()).add(_link(row.inode))

    def ports(self) -> set[int]:
        """The ports on which anybody listens, at whatever address."""
        return set(self._inodes)

    def sockets(self, port: int) -> frozenset[str]:
        """What identifies the listening sockets on a port; another listener has others."""
        return frozenset(self._inodes.get(port, ()))

    def owned(self, port: int, pid: int) -> bool:
        """Whether the process, or one of its descendants, owns a listening socket on the port.

        That supervisord calls a process RUNNING says only that it was started, and that the port
        answers says only that *somebody* listens.
        """
        wanted = self.sockets(port)
        return bool(wanted) and any(
            not wanted.isdisjoint(_sockets(process)) for process in _family(pid)
        )

    def foreign(self, ports: Iterable[int]) -> list[Foreign]:
        """Who listens on these ports, as far as it can be seen; looks at every process."""
        wanted = {link: port for port in ports for link in self._inodes.get(port, ())}
        found = {port: Foreign(port) for port in wanted.values()}
        for link, pid in _holders(wanted.keys()):
            found[wanted[link]] = Foreign(wanted[link], pid, program(pid))
        return [found[port] for port in sorted(found)]


def owners(inodes: Iterable[int]) -> dict[int, int]:
    """The process id of one process that has the socket, by the socket's inode.

    Sockets of processes that this account may not examine are missing.  Raises OSError when the
    kernel can't be asked now.
    """
    links = {_link(inode): inode for inode in inodes}
    return {links[link]: pid for link, pid in _holders(links.keys())}


def program(pid: int) -> str:
    """The name of the process's program; empty when it has ended."""
    try:
        return (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped the process (SIGSTOP, SIGTSTP), so that it does nothing at all.

    One that a debugger holds does not count.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2][:1] == "T"


def _family(pid: int) -> Iterator[int]:
    waiting, seen = [pid], 0
    while waiting and seen < MAX_DESCENDANTS:
        process = waiting.pop()
        seen += 1
        yield process
        waiting += _children(process)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in _entries(PROC / str(pid) / "task"):
        with suppress(*_NOT_SHOWN):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _sockets(pid: int) -> set[str]:
    """The names of the process's open files, sockets among them."""
    found: set[str] = set()
    for descriptor in _entries(PROC / str(pid) / "fd"):
        try:
            found.add(str(descriptor.readlink()))
        except _NOT_SHOWN:  # it was closed
            continue
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:  # a file far down in folders, so no socket
                raise
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except _NOT_SHOWN:
        return []


def _link(inode: int) -> str:
    """What a descriptor of the socket links to in ``/proc/PID/fd``."""
    return f"socket:[{inode}]"


def _holders(links: Set[str]) -> Iterator[tuple[str, int]]:
    """Each process that has one of the sockets, with the link's name; examines every process."""
    if links:
        for pid in _all_processes():
            for link in links & _sockets(pid):
                yield link, pid


def _all_processes() -> list[int]:
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]
