"""One vendor on some members: an upload, the vendor's session and a download, all in this process.

The sessions are real ones, blocks over a socket pair in a real workspace.  The service's side runs
in the calling thread, so that breakpoints, coverage and whatever the test replaced work as in any
function call; the client's side runs in a thread beside it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import zipfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from socketpool.archive.writer import Entry, write_archive
from socketpool.client.answers import LeasedService
from socketpool.client.serviceclients import DownloadClient, ServiceClient, VendorClient
from socketpool.config.settings import read_service
from socketpool.core.servicekinds import ServiceKind
from socketpool.credentials.fence import Fence, Tenure
from socketpool.credentials.tokens import LeaseClaim, LeaseTokens, read_secret
from socketpool.errors import ConfigError, SocketpoolError
from socketpool.protocol.blocks import send_file_block
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import FOR_THE_CLIENT, read_greeting, send_error, send_event
from socketpool.rsi.executable import ExecutableVendor
from socketpool.rsi.runner import workspace as workspaces_of
from socketpool.rsi.runner.parent import load_class
from socketpool.rsi.runner.sessionprocess import verdict
from socketpool.rsi.service import SessionLimits
from socketpool.supervision.instancespec import fill
from socketpool.testing.places import HOST, private_state, shipped, spec_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from socketpool.config.settings import Service
    from socketpool.config.statedir import StateDir
    from socketpool.rsi.runner.workspace import Workspace
    from socketpool.rsi.service import ServiceServer
    from socketpool.rsi.vendor import VendorServer

    ServiceFactory = Callable[[socket.socket, Workspace, SessionLimits], ServiceServer]

PORT = 1
"""Nothing listens there: it only names the service in the lease."""

READ_TIMEOUT_SECONDS = 600.0


class Progress(NamedTuple):
    """One call of the vendor's `progress`."""

    done: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class Processed:
    """What a client would get, and see."""

    changed: dict[str, bytes]
    """The members that differ from what was sent, by name."""
    report: list[str]
    """The vendor's lines of the client's summary: those it sent, then those it reported."""
    progress: list[Progress]


def process(
    vendor: type[VendorServer] | Path | str,
    members: Mapping[str, bytes],
    *,
    client: VendorClient | None = None,
) -> Processed:
    """Run a vendor, a class or the folder of a service, on the members.

    ``client`` is the vendor's client, for those that talk to one of their own.

    Raises what the client would see, any `SocketpoolError`; the vendor's own exception is its
    ``__cause__``.  Members that the server side refuses are refused here too.

    The code runs in this process and thread: the limits of ``service.yml`` don't apply, but for
    ``archive_size``, and nothing ends a vendor that hangs.  `InProcessPool` has all of that.
    """
    with (
        private_state() as state,
        closing(Fence.create(state.fence)) as fence,
        _importing(),
    ):
        run = _Run(state, fence)
        subject = _subject(vendor, state)
        limits = subject.limits
        run.converse(_class_of(shipped("upload")), _Send(_write_zip(state, members)), limits)
        service_client = client or VendorClient()
        with _environment(subject.environment):
            progress = run.converse(subject.factory, service_client, limits)
        target = state.scratch / "returned.zip"
        run.converse(_class_of(shipped("download")), DownloadClient(target), limits)
        with zipfile.ZipFile(target) as returned:
            changed = {info.filename: returned.read(info) for info in returned.infolist()}
    return Processed(
        changed, [*service_client.lines, *service_client.detail.get("report", [])], progress
    )


class _Subject(NamedTuple):
    """What is to be run."""

    factory: ServiceFactory
    limits: SessionLimits
    environment: dict[str, str]


def _subject(vendor: type[VendorServer] | Path | str, state: StateDir) -> _Subject:
    if isinstance(vendor, type):
        return _Subject(vendor, SessionLimits(), {})
    service = read_service(Path(vendor).resolve())
    if service.sdk is None or service.client is not ServiceKind.VENDOR:
        raise ConfigError(
            f"{service.name!r} is no vendor", hint="InProcessPool runs services of any kind"
        )
    spec = spec_of(service, state)
    factory: ServiceFactory = partial(ExecutableVendor, spec=spec)
    if service.sdk.executable is None:
        factory = _class_of(service)
    values = spec.values | {"port": str(PORT), "workspace": str(state.scratch)}
    return _Subject(
        factory,
        SessionLimits(service.limits.session_time, service.limits.archive_size),
        {name: fill(text, values) for name, text in service.environment.items()},
    )


def _class_of(service: Service) -> type[ServiceServer]:
    sdk = service.sdk
    if sdk is None or sdk.file is None or sdk.cls is None:
        raise ConfigError(f"{service.name!r} is not written with a class")
    try:
        return load_class(Path(service.folder), sdk.file, sdk.cls)
    except SystemExit as error:
        raise ConfigError(str(error)) from error


class _Send(ServiceClient):
    """Uploads an archive as it is: what a policy would keep at home is not in question here."""

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self._archive = archive

    def transfer(self) -> None:
        with self._archive.open("rb") as file:
            send_file_block(self.stream, OpenFile(file.fileno(), self._archive.stat().st_size))
        self.finish()


class _Run:
    """The sessions of one lease, one after the other."""

    def __init__(self, state: StateDir, fence: Fence) -> None:
        self._state = state
        self._claim = LeaseClaim("0" * 16, 1)
        self._tokens = LeaseTokens(read_secret(state.lease_key))
        self._tenure = Tenure(fence, PORT, self._claim.generation)
        fence.admit([PORT], self._claim.generation)

    def converse(
        self, service: ServiceFactory, service_client: ServiceClient, limits: SessionLimits
    ) -> list[Progress]:
        """One session, both sides; raises what the client's side raised."""
        ours, theirs = socket.socketpair()
        progress: list[Progress] = []
        service_client.assign(
            LeasedService(service="vendor", host=HOST, port=PORT, instance="vendor:1"),
            self._tokens.sign(self._claim),
            lambda _host, _port: theirs,
            lambda done, total, text: progress.append(Progress(done, total, text)),
        )
        failures: list[Exception] = []

        def act_as_client() -> None:
            try:
                with closing(service_client):
                    service_client.connect()
                    service_client.transfer()
            except Exception as error:  # noqa: BLE001 - raised in the caller's thread
                failures.append(error)

        client = threading.Thread(target=act_as_client, daemon=True, name="socketpool-client")
        client.start()
        try:
            with ours:
                cause = self._serve(ours, service, limits)
        finally:
            client.join()
        for failure in failures:
            raise failure from cause
        return progress

    def _serve(
        self, connection: socket.socket, service: ServiceFactory, limits: SessionLimits
    ) -> BaseException | None:
        """The service's side, without the limits of its own process; returns what failed."""
        try:
            connection.settimeout(READ_TIMEOUT_SECONDS)
            greeting = read_greeting(connection)
            claim = self._tokens.verify(greeting.token)
            workspace = workspaces_of.enter(
                self._state.workspaces, claim, self._tenure, greeting.step
            )
            send_event(connection, "ready", session_time=limits.session_time)
            server = service(connection, workspace, limits)
            server.converse(greeting.client)
            send_event(connection, "done", detail=server.run())
        except ConnectionCut as error:
            return error
        except FOR_THE_CLIENT as error:
            _tell(connection, error)
            return error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the client, and returned
            _tell(connection, verdict(cast("Any", error), self._tenure, self._claim.lease))
            return error
        return None


def _tell(connection: socket.socket, error: SocketpoolError) -> None:
    with suppress(SocketpoolError):
        send_error(connection, error)


def _write_zip(state: StateDir, members: Mapping[str, bytes]) -> Path:
    entries = []
    for number, (name, content) in enumerate(members.items()):
        path = state.scratch / f"{number:06d}"
        path.write_bytes(content)
        entries.append(Entry(name.encode(), not name.isascii(), path))
    target = state.scratch / "sent.zip"
    write_archive(target, entries)
    return target


@contextmanager
def _importing() -> Iterator[None]:
    """Services may import what is beside their file; afterwards all of that is forgotten."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        folders = tuple(f"{folder}/" for folder in set(sys.path) - set(path))
        sys.path[:] = path
        for name in sys.modules.keys() - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(folders):
                del sys.modules[name]


@contextmanager
def _environment(added: dict[str, str]) -> Iterator[None]:
    """What service.yml adds to the environment, for the length of a ``with`` block."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
