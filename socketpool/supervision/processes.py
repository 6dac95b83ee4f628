"""Processes as the kernel knows them: who listens on a port, and who was left behind."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from socketpool.sockets import listen_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one of its descendants, owns a listening socket on the port.

    That supervisord calls a process RUNNING says only that it was started, and that the port
    answers says only that *somebody* listens.
    """
    try:
        process = psutil.Process(pid)
        return _owns(process, port) or any(
            _owns(child, port) for child in process.children(recursive=True)
        )
    except psutil.Error:
        return False


def speaks_for(speaker: int, pid: int) -> bool:
    """Whether a process is another, or was started by it or by what it started."""
    try:
        return speaker == pid or pid in {p.pid for p in psutil.Process(speaker).parents()}
    except psutil.Error:
        return False


def _owns(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


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
