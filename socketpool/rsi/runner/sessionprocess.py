"""The life of one session, in its own process: greeting, work, verdict, all of it timed."""

from __future__ import annotations

import logging
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from socketpool.credentials.fence import Fence, Tenure
from socketpool.errors import NotAuthorised, ServiceFailed, SocketpoolError, TimedOut
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import FOR_THE_CLIENT, read_greeting, send_error, send_event
from socketpool.rsi.crash import details_in_log
from socketpool.rsi.runner import workspace as workspaces_of
from socketpool.rsi.runner.workrecord import Phase, begin_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.credentials.tokens import LeaseTokens
    from socketpool.rsi.runner.slots import Slots
    from socketpool.rsi.runner.workrecord import WorkRecord
    from socketpool.rsi.runner.workspace import Workspace
    from socketpool.rsi.service import ServiceServer, SessionLimits

HANDSHAKE_SECONDS = 5.0
"""A peer that has not shown a valid token by then is dropped, however slowly it types."""

IDLE_SECONDS = 60.0
"""The longest wait for a peer in the middle of its work."""

log = logging.getLogger("socketpool.session")


def run_session(
    connection: socket.socket,
    *,
    service: Callable[[socket.socket, Workspace, SessionLimits], ServiceServer],
    tokens: LeaseTokens,
    workspaces: Path,
    fence: Fence,
    port: int,
    limits: SessionLimits,
    slots: Slots,
    record: WorkRecord,
) -> None:
    """Serve one connection to its end; every failure has been told to the peer and logged."""
    begin_record(record, connection)
    lease = ""
    tenure = Tenure(fence, port, 0)
    try:
        with _time_limit(HANDSHAKE_SECONDS, "no valid token within the time allowed"):
            connection.settimeout(HANDSHAKE_SECONDS)
            greeting = read_greeting(connection)
            claim = tokens.verify(greeting.token)
            tenure = Tenure(fence, port, claim.generation)
            workspace = workspaces_of.enter(workspaces, claim, tenure, greeting.step)
            lease = claim.lease
            slots.take(HANDSHAKE_SECONDS)
            send_event(connection, "ready", session_time=limits.session_time)
        record.lease, record.phase = lease, Phase.WORKING
        connection.settimeout(IDLE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with _time_limit(limits.session_time, "the session took longer than the service allows"):
            server = service(connection, workspace, limits)
            server.converse(greeting.client)
            send_event(connection, "done", detail=server.run())
        record.phase = Phase.OVER
        log.info("session done", extra={"lease": lease, "port": port})
    except ConnectionCut as error:
        record.phase = Phase.OVER
        log.warning("session cut", extra={"lease": lease, "port": port, "error": error.message})
    except FOR_THE_CLIENT as error:
        log.warning("session refused", extra={"lease": lease, "port": port, "error": error.message})
        _tell(connection, error, record)
        record.phase = Phase.OVER
    except BaseException as error:  # vendor code raises what it likes, KeyboardInterrupt for one
        log.exception("session failed", extra={"lease": lease, "port": port})
        _tell(connection, verdict(error, tenure, lease), record)
        record.phase = Phase.OVER


def verdict(error: BaseException, tenure: Tenure, lease: str) -> SocketpoolError:
    """What the client may know of an unexpected failure."""
    if not tenure.lasts():
        return NotAuthorised("the lease ended during the session", hint="take a new lease")
    return ServiceFailed(
        f"the service failed unexpectedly ({type(error).__name__})", hint=details_in_log(lease)
    )


def _tell(connection: socket.socket, error: SocketpoolError, record: WorkRecord) -> None:
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
        if not record.unfinished_block:  # in the middle of a file the client would store the words
            send_error(connection, error)
        # Closing with unread input would reset the connection and take the verdict with it.
        connection.shutdown(socket.SHUT_WR)
        for _ in range(64):
            if not connection.recv(1 << 16):
                break
    except (OSError, SocketpoolError):
        log.info("the peer did not wait for the verdict")


@contextmanager
def _time_limit(seconds: float, message: str) -> Iterator[None]:
    def expire(*_: Any) -> None:
        raise TimedOut(message)

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
