"""Processes as the kernel knows them: whose child is whose, and who was left behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from socketpool.system.sockets import listen_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


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


def started(pid: int) -> float:
    """When the process started, in seconds of CLOCK_BOOTTIME and not later; 0 when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    return int(stat.rpartition(") ")[2].split()[19]) / os.sysconf("SC_CLK_TCK")  # proc(5)


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
    mark = f"SUPERVISOR_SERVER_URL=unix://{supervisor_socket}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            # Read as it is: psutil takes twenty times as long for what most processes don't have.
            with suppress(OSError, psutil.Error):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(folder.name)))
    return found


def orphans(
    supervisor_socket: Path, supervisord_pid: int, instances: dict[int, int]
) -> list[psutil.Process]:
    """Processes that instances of before left behind under a supervisord that still runs.

    They carry its mark, don't descend from it any more, and are older than the process that the
    instance of their name has now; ``instances`` are those processes by port.  Whatever an instance
    of now started belongs to it, even if it has been made a daemon.
    """
    running = set(instances.values())
    found = []
    for process in strays(supervisor_socket):
        if process.pid in running:
            continue
        with suppress(psutil.Error):
            lineage = {p.pid for p in process.parents()} | {process.pid}
            if supervisord_pid in lineage:
                continue
            name = process.environ().get("SUPERVISOR_PROCESS_NAME", "")
            current = instances.get(int(name)) if name.isdigit() else None
            if current is None or process.create_time() < psutil.Process(current).create_time():
                found.append(process)
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
