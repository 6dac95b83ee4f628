"""The life of one session, in its own process: greeting, work, verdict, all of it timed."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from socketpool.credentials.fence import Fence, Tenure
from socketpool.errors import NotAuthorised, ServiceFailed, SocketpoolError, TimedOut
from socketpool.protocol.frames import ConnectionCut
from socketpool.protocol.session import FOR_THE_CLIENT, read_greeting, send_error, send_event
from socketpool.rsi.crash import details_in_log
from socketpool.rsi.runner import workspace as workspaces_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.credentials.tokens import LeaseTokens
    from socketpool.rsi.runner.slots import Slots
    from socketpool.rsi.runner.workspace import Workspace
    from socketpool.rsi.service import ServiceServer, SessionLimits

HANDSHAKE_SECONDS = 5.0
"""A peer that has not shown a valid token by then is dropped, however slowly it types."""

IDLE_SECONDS = 60.0
"""The longest wait for a peer in the middle of its work."""

LEASE_CHECK_SECONDS = 1.0

LEASE_LOST_STATUS = 3

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
) -> None:
    """Serve one connection to its end; every failure has been told to the peer and logged."""
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
        _end_with_lease(tenure, lease)
        connection.settimeout(IDLE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with _time_limit(limits.session_time, "the session took longer than the service allows"):
            server = service(connection, workspace, limits)
            server.converse(greeting.client)
            send_event(connection, "done", detail=server.run())
        log.info("session done", extra={"lease": lease, "port": port})
    except ConnectionCut as error:
        log.warning("session cut", extra={"lease": lease, "port": port, "error": error.message})
    except FOR_THE_CLIENT as error:
        log.warning("session refused", extra={"lease": lease, "port": port, "error": error.message})
        _tell(connection, error)
    except (Exception, SystemExit) as error:
        log.exception("session failed", extra={"lease": lease, "port": port})
        _tell(connection, verdict(error, tenure, lease))


def verdict(error: BaseException, tenure: Tenure, lease: str) -> SocketpoolError:
    """What the client may know of an unexpected failure."""
    if not tenure.lasts():
        return NotAuthorised("the lease ended during the session", hint="take a new lease")
    return ServiceFailed(
        f"the service failed unexpectedly ({type(error).__name__})", hint=details_in_log(lease)
    )


def _tell(connection: socket.socket, error: SocketpoolError) -> None:
    try:
        connection.settimeout(HANDSHAKE_SECONDS)
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


def _end_with_lease(tenure: Tenure, lease: str) -> None:
    """End this process soon after its lease ends, whatever it is doing then."""

    def watch() -> None:
        tick = threading.Event()
        while tenure.lasts():
            tick.wait(LEASE_CHECK_SECONDS)
        log.warning("the lease ended during the session", extra={"lease": lease})
        os._exit(LEASE_LOST_STATUS)

    threading.Thread(target=watch, daemon=True, name="lease-watch").start()
