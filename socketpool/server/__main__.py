"""The pool server as supervisord runs it: ``python -m socketpool.server <state dir>``."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from socketpool.config.settings import Settings
from socketpool.config.statedir import StateDir
from socketpool.credentials.tokens import LeaseTokens, read_secret
from socketpool.errors import ConfigError, SocketpoolError
from socketpool.logs import log_in_batches
from socketpool.server.api.app import make_app
from socketpool.server.http.connections import Connections
from socketpool.server.http.fastpath import LeaseFastPath
from socketpool.server.http.protocol import BoundedHttp
from socketpool.server.poolmanager import PoolManager
from socketpool.store.sqlite import SqliteLeaseStore
from socketpool.supervision.launch import end_with_supervisord
from socketpool.supervision.rpc import Supervisor
from socketpool.system.sockets import listen_on

if TYPE_CHECKING:
    import socket

BACKLOG = 2048


def main(root: str) -> int:
    """Serve until SIGTERM; returns the exit code."""
    log_in_batches()
    state = StateDir(Path(root))
    end_with_supervisord(str(state.supervisord_pid))  # what clients were told is durable
    try:
        settings = Settings.model_validate_json(state.settings.read_bytes())
        listener = _listen(settings.listen.host, settings.listen.port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, state, listener))
    except SocketpoolError as error:
        print(f"pool server: {error.message}", file=sys.stderr)  # noqa: T201
        return error.exit_code


async def _serve(settings: Settings, state: StateDir, listener: socket.socket) -> int:
    manager = PoolManager(
        settings,
        state,
        Supervisor(state.supervisor_socket),
        SqliteLeaseStore(state.store),
        LeaseTokens(read_secret(state.lease_key)),
        read_secret(state.token),
    )
    protocol = partial(
        BoundedHttp,
        fast_path=LeaseFastPath(manager),
        open_connections=Connections(),
        client_of=manager.client_of,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(manager),
            loop="none",
            http=protocol,  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=3,
        )
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, manager.reload_soon)
    gc.freeze()  # what is here stays; looking at it again and again would hold up requests
    await server.serve([listener])
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    try:
        return listen_on(host, port, BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host} port {port}: {error.strerror}",
            hint="another program may have the port; choose another",
        ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
