"""The SDK's runner for one instance without a pool, whose workspace is tied to a file of the user.

In a pool, the steps pass the archive on in the lease's workspace.  Here it lies in the user's file
before and after each session: *upload* stores it, *vendor* processes it, *download* sends it.
It is run as ``python -m socketpool.development.onfile <service.json> <port>``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import ServiceFailed
from socketpool.logs import log_to_stderr
from socketpool.rsi.runner.parent import Runner, read_spec
from socketpool.rsi.service import ServiceServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from socketpool.rsi.runner.workspace import Workspace
    from socketpool.rsi.service import SessionLimits
    from socketpool.supervision.instancespec import InstanceSpec

_STORED = "stored"


class FileRunner(Runner):
    """Serves sessions that begin and end with the user's file."""

    def __init__(self, spec: InstanceSpec, port: int) -> None:
        super().__init__(spec, port)
        on_file = spec.on_file
        if on_file is None:
            raise ValueError(f"the specification of {spec.name} names no file")
        self._service = partial(
            _KINDS[ServiceKind(on_file.client)],
            service=self._service,
            file=Path(on_file.file),
            result=Path(on_file.result),
            replace=on_file.replace,
        )


class OnFile(ServiceServer):
    """Wraps a service: reads the user's file before its session and writes the result after it."""

    def __init__(
        self,
        stream: socket.socket,
        workspace: Workspace,
        limits: SessionLimits,
        *,
        service: Callable[[socket.socket, Workspace, SessionLimits], ServiceServer],
        file: Path,
        result: Path,
        replace: bool,
    ) -> None:
        self._inner = service(
            stream, workspace, limits
        )  # `converse` needs it, and is called by the constructor
        super().__init__(stream, workspace, limits)
        self._file = file
        self._result = result
        self._replace = replace

    def converse(self, client: str) -> None:
        """See `ServiceServer.converse`."""
        self._inner.converse(client)

    def run(self) -> dict[str, Any]:
        """Run the session; the client is told that it is done once the file is in place."""
        self._before()
        outcome = self._inner.run()
        self._after()
        return outcome

    def transfer(self) -> None:
        """Call the ``transfer`` of the wrapped service."""
        self._inner.transfer()

    def _before(self) -> None:
        """Make the user's file available to the service."""

    def _after(self) -> None:
        """Write the file that the service made to the user's path."""

    def _bring_in(self, place: Path) -> None:
        # A link, so that a download that was interrupted resumes with the same file.
        if not self._file.is_file():
            raise ServiceFailed(f"there is no file {self._file} yet", hint="put it there")
        if not place.is_symlink():
            place.unlink(missing_ok=True)
            place.symlink_to(self._file)

    def _check_room(self) -> None:
        """Raise ServiceFailed if the result would replace a file that isn't from this instance."""
        if self._replace or not self._result.exists():
            return
        if self._identity() != self._stored():
            raise ServiceFailed(
                f"the server's file {self._result} is there already, and not from this server",
                hint="move it away, or start the server with --replace",
            )

    def _bring_out(self, made: Path) -> None:
        with tempfile.NamedTemporaryFile(
            dir=self._result.parent, prefix=f".{self._result.name}.", delete=False
        ) as part:
            try:
                with made.open("rb") as source:
                    shutil.copyfileobj(source, part)
                part.close()
                Path(part.name).replace(self._result)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
        (self.workspace.root / _STORED).write_text(self._identity(), encoding="ascii")

    def _identity(self) -> str:
        found = self._result.stat()
        return f"{found.st_dev} {found.st_ino} {found.st_mtime_ns}"

    def _stored(self) -> str:
        try:
            return (self.workspace.root / _STORED).read_text(encoding="ascii")
        except FileNotFoundError:
            return ""


class _Stores(OnFile):
    def _before(self) -> None:
        self._check_room()

    def _after(self) -> None:
        self._bring_out(self.workspace.incoming)


class _Processes(OnFile):
    def _before(self) -> None:
        self._check_room()
        self._bring_in(self.workspace.incoming)
        self.workspace.forget_steps()  # each session processes the file as if just uploaded

    def _after(self) -> None:
        if self.workspace.outgoing is not None:
            self._bring_out(self.workspace.outgoing)


class _Sends(OnFile):
    def _before(self) -> None:
        # Under the name of a step's archive, which is what the service looks for.
        self._bring_in(self.workspace.root / "step-000000-file.zip")


_KINDS: dict[ServiceKind, type[OnFile]] = {
    ServiceKind.UPLOAD: _Stores,
    ServiceKind.VENDOR: _Processes,
    ServiceKind.DOWNLOAD: _Sends,
}


def main(argv: list[str]) -> None:
    """Run the service that ``argv`` names."""
    os.umask(0o077)
    log_to_stderr()
    FileRunner(read_spec(argv[0]), int(argv[1])).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
