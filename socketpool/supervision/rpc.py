"""supervisord's XML-RPC over its unix socket, typed and bounded in time.

Synchronous on purpose: supervisord answers one request at a time anyway, so the pool server asks
from one worker thread.
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supervisor.xmlrpc import Faults

from socketpool.errors import SocketpoolError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 10.0
"""Seconds that supervisord may take over an answer; a busy one needs well below one."""


class ConfigRefused(SocketpoolError):
    """supervisord can't read its configuration files; as it reads all of them, any may be to blame.

    Nothing has changed.
    """

    exit_code = 2
    code = "supervisor-configuration"


class SupervisorUnreachable(SocketpoolError):
    """supervisord does not answer on its socket."""

    exit_code = 3
    code = "supervisor-unreachable"


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What supervisord says about one process."""

    group: str
    name: str
    state: str
    pid: int
    log: str

    @property
    def alive(self) -> bool:
        """Whether supervisord has a process for it now."""
        return self.pid > 0 and self.state in {"STARTING", "RUNNING", "STOPPING"}

    @property
    def at_rest(self) -> bool:
        """Whether it has no process and supervisord won't start one by itself."""
        return self.state in {"STOPPED", "FATAL"}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        self._connection = host, connection  # so that close() finds it
        return connection


class Supervisor:
    """One supervisord.  Each method is one RPC; all raise :class:`SupervisorUnreachable`."""

    def __init__(self, sock: Path) -> None:
        self._sock = sock

    def processes(self) -> list[ProcessInfo]:
        """All processes; asking also makes supervisord reap and respawn at once."""
        return [_process(info) for info in self._call("getAllProcessInfo")]

    def process(self, name: str) -> ProcessInfo | None:
        """One process, if there is one of this name; makes supervisord reap too, for less."""
        info = self._call("getProcessInfo", name, tolerate=(Faults.BAD_NAME,))
        return None if info is None else _process(info)

    def supervisord_pid(self) -> int:
        """The process id of supervisord itself."""
        return int(self._call("getPID"))

    def version(self) -> str:
        """supervisord's own version, such as ``4.2.5``."""
        return str(self._call("getSupervisorVersion"))

    def start(self, name: str) -> None:
        """Start a process and don't wait for it; one that runs already is fine."""
        self._call("startProcess", name, False, tolerate=(Faults.ALREADY_STARTED,))  # noqa: FBT003

    def stop(self, name: str) -> bool:
        """Ask a process to stop and don't wait; False when it had none just then.

        Waiting would make supervisord poll in a busy loop.  False may also mean that it exited and
        is about to be respawned, so look again.
        """
        answer = self._call("stopProcess", name, False, tolerate=(Faults.NOT_RUNNING,))  # noqa: FBT003
        return answer is not None

    def add_group(self, name: str) -> None:
        """Read the configuration files again and take in one new group.

        Raises :class:`ConfigRefused` when any of the files is bad.
        """
        self.reload()
        self._call("addProcessGroup", name)

    def remove_group(self, name: str) -> None:
        """Give up a group all of whose processes are stopped; one that is gone already is fine."""
        self._call("removeProcessGroup", name, tolerate=(Faults.BAD_NAME,))

    def reload(self) -> None:
        """Read the configuration files again and do nothing about it; raises ConfigRefused."""
        self._call("reloadConfig")

    def _call(self, method: str, *arguments: Any, tolerate: tuple[int, ...] = ()) -> Any:
        # A connection of its own for each call: supervisord closes idle ones as it likes, and a
        # unix connection costs microseconds.
        transport = _UnixTransport(self._sock)
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in tolerate:
                return None
            if fault.faultCode == Faults.CANT_REREAD:
                raise ConfigRefused(f"supervisord: {fault.faultString}") from None
            raise SocketpoolError(f"supervisord: {method}: {fault.faultString}") from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorUnreachable(
                f"supervisord does not answer on {self._sock}: {error}",
                hint="is the pool running?",
            ) from None
        finally:
            transport.close()


def _process(info: dict[str, Any]) -> ProcessInfo:
    return ProcessInfo(
        info["group"], info["name"], info["statename"], info["pid"], info["stdout_logfile"]
    )
