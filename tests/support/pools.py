"""Real pools for tests: ``socketpool_server`` as a user runs it, on ports that nobody else uses."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import yaml

from socketpool.client.api import PoolClient
from socketpool.client.dial import dial_tcp
from socketpool.core.ports import PortRange
from socketpool.protocol.blocks import send_line_block
from socketpool.protocol.session import await_event, greet
from socketpool.supervision.rpc import Supervisor
from socketpool.system.sockettable import listening_sockets
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


CATALOGUE = Path(__file__).parents[1] / "catalogue"
SHIPPED = Path(__file__).parents[2] / "services"
TOOLS = Path(sys.executable).parent
START_SECONDS = 90.0

FIRST_PORT, LAST_PORT, BLOCK = 22000, 32000, 40
"""Tests stay above the shipped default range and below the kernel's ephemeral one."""

PROBE: dict[str, Any] = yaml.safe_load((CATALOGUE / "probe" / "service.yml").read_text())
PROBE_CODE = (CATALOGUE / "probe" / "probe.py").read_text()

WEB: dict[str, Any] = {
    "description": "A plain program.",
    "command": [
        *("{python}", "-m", "http.server", "{port}", "--bind", "{host}"),
        *("--directory", "{workspace}"),
    ],
}


def shipped(name: str, code: str | None = None) -> dict[str, Any]:
    """A service as it is shipped, or with other code in its place."""
    return {
        "description": name,
        "sdk": {"file": f"{name}.py", "class": name.capitalize()},
        "client": name,
        "code": code or (SHIPPED / name / f"{name}.py").read_text(),
    }


@dataclass
class Answer:
    """A reply of the API."""

    status: int
    headers: dict[str, str]
    body: Any


class PortBlock:
    """A run of ports held for this process, against other test runs on the machine too."""

    def __init__(self) -> None:
        firsts = list(range(FIRST_PORT, LAST_PORT, BLOCK))
        random.shuffle(firsts)
        for first in firsts:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # An abstract name: seen by every user, gone with this process.
                claim.bind(f"\0socketpool-tests-{first}")
            except OSError:
                claim.close()
                continue
            ports = PortRange(first, first + BLOCK - 1)
            if not listening(ports):
                self.ports, self._claim = ports, claim
                return
            claim.close()
        raise AssertionError("no free block of ports on this machine")

    def close(self) -> None:
        self._claim.close()


def listening(ports: PortRange) -> list[int]:
    """Those of the ports on which anybody listens, at any address."""
    return sorted({row.port for row in listening_sockets() if row.port in ports})


def command_of(process: psutil.Process) -> list[str]:
    """Its words; none when it has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def belongings(state: Path) -> list[psutil.Process]:
    """Every process that belongs to the pool of a state directory, the server itself included."""
    url = f"unix://{state / 'supervisor.sock'}"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = str(state) in process.cmdline() or str(state / "supervisord.conf") in (
                process.cmdline()
            )
            if process.status() != psutil.STATUS_ZOMBIE and (
                ours or process.environ().get("SUPERVISOR_SERVER_URL") == url
            ):
                found.append(process)
    return found


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of somebody who never heard of us."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("SOCKETPOOL_", "XDG_"))}
    return kept | {"HOME": str(home), "PYTHONWARNINGS": "default"}


def run_tool(
    name: object, *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run one of the installed commands to its end."""
    return subprocess.run(
        [TOOLS / str(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=env or clean_environment(Path(tempfile.gettempdir())),
        **options,
    )


@dataclass
class RunningPool:
    """A pool under test."""

    process: subprocess.Popen[bytes]
    folder: Path
    host: str
    ports: PortRange
    port: int = 0
    clients: list[PoolClient] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "s"

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    @property
    def output(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def await_ready(self) -> None:
        def announced() -> bool:
            assert self.process.poll() is None, f"the server ended: {self.errors}"
            return "stop it:" in self.output

        eventually(announced, f"pool ready; so far: {self.errors}", START_SECONDS)
        first = next(x for x in self.output.splitlines() if x.startswith("pool ready at "))
        self.port = int(first.split()[-1])

    def client(self, token: str | None = None) -> PoolClient:
        made = PoolClient(self.host, self.port, token or self.token)
        self.clients.append(made)
        return made

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request as any HTTP client would send it."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        sent = {"Authorization": f"Bearer {self.token if token is None else token}"}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        with contextlib.closing(connection):
            connection.request(method, path, data, sent | (headers or {}))
            response = connection.getresponse()
            raw = response.read()
            given = {k.lower(): v for k, v in response.getheaders()}
        is_json = "json" in given.get("content-type", "")
        return Answer(response.status, given, json.loads(raw) if is_json else raw)

    def lease(self, *services: str, **fields: Any) -> dict[str, Any]:
        """A lease that has to be granted."""
        answer = self.request("POST", "/v1/leases", {"services": list(services)} | fields)
        assert answer.status == 201, answer.body
        granted: dict[str, Any] = answer.body
        return granted

    def release(self, lease: dict[str, Any]) -> None:
        answer = self.request("DELETE", f"/v1/leases/{lease['lease']}")
        assert answer.status == 204, answer.body

    @contextlib.contextmanager
    def leased(self, *services: str, **fields: Any) -> Iterator[dict[str, Any]]:
        lease = self.lease(*services, **fields)
        try:
            yield lease
        finally:
            self.request("DELETE", f"/v1/leases/{lease['lease']}")

    def instances(self, service: str | None = None) -> list[dict[str, Any]]:
        answer = self.request("GET", "/v1/instances")
        assert answer.status == 200, answer.body
        return [i for i in answer.body if service in {None, i["service"]}]

    def instance(self, port: int) -> dict[str, Any]:
        return next(i for i in self.instances() if i["port"] == port)

    def await_state(self, port: int, state: str) -> dict[str, Any]:
        """The instance, once it is in this state."""

        def found() -> dict[str, Any] | None:
            instance = self.instance(port)
            return instance if instance["state"] == state else None

        return eventually(found, f"port {port} {state}; instances: {self.instances()}")

    def await_idle(self, service: str, count: int) -> list[dict[str, Any]]:
        """The idle instances of a service, once there are so many."""

        def idle() -> list[dict[str, Any]]:
            found = [i for i in self.instances(service) if i["state"] == "idle"]
            return found if len(found) >= count else []

        return eventually(idle, f"{count} idle {service}")

    def log(self, name: str) -> str:
        return (self.state / "logs" / f"{name}.log").read_text()

    def edit(self, **changes: Any) -> None:
        """Change the pool's file: ``pool``, ``services``, ``catalogue`` and so on, as they are."""
        path = self.folder / "pool.yml"
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(content | changes))

    def edit_service(self, name: str, **changes: Any) -> None:
        """Change the file of a service, or write a new one."""
        folder = self.folder / "services" / name
        folder.mkdir(exist_ok=True)
        path = folder / "service.yml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump(content | changes))

    def supervisorctl(self, *arguments: str) -> str:
        """What supervisorctl prints."""
        conf = str(self.state / "supervisord.conf")
        return run_tool("supervisorctl", "-c", conf, *arguments).stdout

    def supervisord(self) -> psutil.Process:
        return psutil.Process(int((self.state / "supervisord.pid").read_text()))

    def server_pid(self) -> int:
        """The pool server's process, as supervisord knows it."""
        processes = Supervisor(self.state / "supervisor.sock").processes()
        return next(p.pid for p in processes if p.name == "pool-server")

    def await_server(self, *, after: int = 0) -> None:
        """The pool server answers, as another process than ``after``."""

        def back() -> bool:
            try:
                # The order matters: whoever asks supervisord has it notice deaths at once.
                return self.server_pid() != after and self.request("GET", "/readyz").status == 200
            except (OSError, ValueError, http.client.HTTPException):
                return False

        eventually(back, "the pool server to be back")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it as a user does; returns the exit code."""
        for client in self.clients:
            client.close()
        self.clients.clear()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def assert_nothing_left(self) -> None:
        def gone() -> bool:
            return not belongings(self.state) and not listening(self.ports)

        try:
            eventually(gone, "the pool's end", 20)
        except AssertionError:
            left = [(p.pid, command_of(p)) for p in belongings(self.state)]
            raise AssertionError(
                f"left behind: processes {left}, ports {listening(self.ports)}"
            ) from None

    def end(self) -> None:
        """Stop it, whatever happened to it, and check that nothing is left."""
        was_running = self.process.poll() is None
        try:
            code = self.stop()
            assert not was_running or code == 0, self.errors
            self.assert_nothing_left()
        finally:
            for process in belongings(self.state):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.process.kill()
            self.process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)


class PoolMaker:
    """Makes pools, and ends all of them when its ``with`` block does."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def folder(self) -> Path:
        """A short private directory: the path of a unix socket has 107 bytes."""
        folder = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def ports(self) -> PortRange:
        """A block of free ports of our own."""
        block = PortBlock()
        self._stack.callback(block.close)
        return block.ports

    def write(
        self,
        folder: Path,
        services: dict[str, dict[str, Any]],
        *,
        ports: PortRange,
        clients: dict[str, Any] | None = None,
        **pool: Any,
    ) -> Path:
        """A ``pool.yml`` with a catalogue beside it."""
        for name, service in services.items():
            target = folder / "services" / name
            target.mkdir(parents=True)
            content = dict(service)
            code = content.pop("code", PROBE_CODE)
            (target / "service.yml").write_text(yaml.safe_dump(content))
            if "file" in content.get("sdk", {}):
                (target / content["sdk"]["file"]).write_text(code)
        path = folder / "pool.yml"
        section = {"ports": str(ports)} | pool
        file = {"pool": section, "catalogue": ["services"], "clients": clients or {}}
        path.write_text(yaml.safe_dump(file))
        return path

    def start(
        self,
        services: dict[str, dict[str, Any]],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ready: bool = True,
        ports: PortRange | None = None,
        **pool: Any,
    ) -> RunningPool:
        """A pool of these services; ``pool`` is its section in the file, or its clients."""
        folder = self.folder()
        ports = ports or self.ports()
        path = self.write(folder, services, ports=ports, **pool)
        return self.launch(folder, path, ports, host=host, port=port, ready=ready)

    def launch(
        self,
        folder: Path,
        target: Path | str,
        ports: PortRange,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ready: bool = True,
    ) -> RunningPool:
        """``socketpool_server`` in a terminal of its own, so to speak."""
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [
                    *(TOOLS / "socketpool_server", host, str(port), str(target)),
                    *("--state-dir", str(folder / "s")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=clean_environment(folder) | {"PYTHONUNBUFFERED": "1"},
                cwd="/",
                start_new_session=True,
            )
        pool = RunningPool(process, folder, host, ports)
        self._stack.callback(pool.end)
        if ready:
            pool.await_ready()
        return pool


# -- sessions --------------------------------------------------------------------------------


@contextlib.contextmanager
def session(
    lease: dict[str, Any], service: str, token: str | None = None
) -> Iterator[socket.socket]:
    """An open session on a leased service."""
    entry = place(lease, service)
    stream = dial_tcp(entry["host"], entry["port"])
    with stream:
        stream.settimeout(60)
        greet(stream, token or lease["token"])
        yield stream


def place(lease: dict[str, Any], service: str) -> dict[str, Any]:
    """Where a service of a lease is."""
    found: dict[str, Any] = next(s for s in lease["services"] if s["service"] == service)
    return found


def ask_probe(lease: dict[str, Any], do: str, service: str = "probe", **fields: Any) -> Any:
    """Have the probe service do something; returns what it says of it."""
    with session(lease, service) as stream:
        send_line_block(stream, json.dumps({"do": do} | fields))
        return await_event(stream, "done")["detail"].get("answer")


def connects(host: str, port: int) -> bool:
    """Whether anybody answers there."""
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True


def ended(pid: int) -> bool:
    """Whether the process is no more, or a zombie at most."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(pid: int) -> None:
    """``kill -9``; returns when the process is dead."""
    assert pid > 0, "no process; 0 would be our whole group"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: ended(pid), f"death of {pid}")
