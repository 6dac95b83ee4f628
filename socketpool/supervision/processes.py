"""Processes as the kernel knows them: whose child is whose, and who was left behind."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from socketpool.sockets import listen_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def child_of(parent: int, pid: int) -> int:
    """The child of ``parent`` from which a process descends, or which it is; 0 when there is none.

    What an instance started may speak for it; the instance is a child of supervisord.
    """
    try:
        process: psutil.Process | None = psutil.Process(pid)
        while process is not None and process.ppid() != parent:
            process = process.parent()
    except psutil.Error:
        return 0
    return 0 if process is None else process.pid


def busy_ports(host: str, ports: Iterable[int]) -> set[int]:
    """Those of the ports that somebody else holds at this address."""
    return {port for port in ports if why_not(host, port)}


def why_not(host: str, port: int) -> str:
    """Why nothing of ours could listen there now; empty when it could."""
    try:
        listen_on(host, port, 1).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def strays(supervisor_socket: Path) -> list[psutil.Process]:
    """Processes that a supervisord with this socket started, and whatever descends from them.

    After supervisord was killed its children live on and keep their ports.  Only ask when no
    supervisord is running on the socket.
    """
    url = f"unix://{supervisor_socket}"
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SUPERVISOR_SERVER_URL") == url:
                found.append(process)
        except psutil.Error:
            continue
    return found


def orphans(
    supervisor_socket: Path, supervisord_pid: int, instances: dict[int, float]
) -> list[psutil.Process]:
    """Processes that instances of before left behind under a supervisord that still runs.

    They carry its mark, don't descend from it any more, and are older than the instance that now
    has their name; ``instances`` are the processes of those, with their times of birth.  Whatever
    an instance of now started belongs to it, even if it has been made a daemon.
    """
    found = []
    for process in strays(supervisor_socket):
        try:
            lineage = {p.pid for p in process.parents()} | {process.pid}
            if supervisord_pid in lineage:
                continue
            name = process.environ().get("SUPERVISOR_PROCESS_NAME", "")
            port = int(name) if name.isdigit() else 0
            if process.create_time() < instances.get(port, float("inf")):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(processes: list[psutil.Process], *, grace: float) -> None:
    """Ask the processes to end, and kill those that haven't after ``grace`` seconds."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=grace)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.Error):
        send()
