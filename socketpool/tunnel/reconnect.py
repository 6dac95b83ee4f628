"""A tunnel that stays: one connection at a time, made again after each loss.

New streams wait, bounded, while there is none.  What went through a lost connection is not
replayed: its streams fail, and whoever used them knows whether to resume.

A login that is refused is tried again for a while, since it was accepted before: hosts refuse it
while they boot (nologin), and agents may be locked.  Another host key ends it at once.

What a try raises that nobody foresaw (no descriptor left, a bug of a library) is told and tried
again as any other reason is; only what goes wrong around the tries ends them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from socketpool.errors import NotAuthorised, SocketpoolError
from socketpool.tunnel.failures import LoginRefused, TunnelDown, TunnelFailed
from socketpool.tunnel.states import TUNNEL, TunnelEvent, TunnelState
from socketpool.tunnel.threads import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from socketpool.tunnel.channel import TunnelStream
    from socketpool.tunnel.link import Link

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
LONGEST_REFUSED_PAUSE = 30.0
"""Between logins that are refused; hosts shut out who tries too often."""
GIVE_UP_SECONDS = 3600.0
"""So long a login that is refused, and was accepted before, is tried again."""
DIAL_SECONDS = 30.0
"""So long a new stream waits for a connection that is being restored."""


log = logging.getLogger("socketpool.tunnel")


class Tunnel:
    """Keeps a connection up from `open` to `close`; thread-safe."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Link],
        on_change: Callable[[TunnelState, str], None] = lambda _state, _why: None,
        give_up: float = GIVE_UP_SECONDS,
    ) -> None:
        """``give_up`` bounds, in seconds, how long a login that is refused is tried again."""
        self.name = name
        self._give_up_seconds = give_up
        self._connect = connect
        self._on_change = on_change
        self._changed = threading.Condition()
        self._state = TunnelState.NEW
        self._link: Link | None = None
        self._failure: SocketpoolError | None = None
        self._waits = True
        self._keeper: threading.Thread | None = None

    @property
    def state(self) -> TunnelState:
        """Where it is."""
        return self._state

    @property
    def failure(self) -> SocketpoolError | None:
        """Why it won't be up again; None while it may be."""
        return self._failure

    def open(self) -> None:
        """Connect for the first time; raises what went wrong."""
        link = self._connect()
        self._step(TunnelEvent.CONNECTED, link=link)
        self._keeper = start("tunnel-keeper", self._keep)

    def dial(self, host: str, port: int) -> TunnelStream:
        """A stream to a port behind the tunnel; see `socketpool.client.dial`.

        Waits for a connection that is being restored.  Raises TunnelDown, TargetRefused,
        ForwardProhibited, or why the host doesn't take us any more.
        """
        deadline = time.monotonic() + DIAL_SECONDS
        while True:
            link = self._await_link(deadline)
            try:
                return link.open(host, port)
            except TunnelDown:
                # Lost meanwhile, which the keeper is about to notice too.
                if time.monotonic() > deadline:
                    raise
                with self._changed:
                    self._changed.wait_for(lambda: self._link is not link, 1)  # noqa: B023

    def link(self) -> Link:
        """The connection as it is now; waits as `dial` does, and raises the same."""
        return self._await_link(time.monotonic() + DIAL_SECONDS)

    def stop_waiting(self) -> None:
        """From now on `dial` fails at once when there is no connection: the end is near."""
        with self._changed:
            self._waits = False
            self._changed.notify_all()

    def close(self) -> None:
        """End it, and every stream through it."""
        with self._changed:
            if not TUNNEL.allows(self._state, TunnelEvent.CLOSE):
                return
        link = self._step(TunnelEvent.CLOSE)
        if link is not None:
            link.close()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(10)

    def _await_link(self, deadline: float) -> Link:
        with self._changed:
            self._changed.wait_for(
                lambda: self._state is not TunnelState.RECONNECTING or not self._waits,
                deadline - time.monotonic(),
            )
            if self._link is not None:
                return self._link
            if self._failure is not None:
                raise self._failure
        raise TunnelDown(
            f"the tunnel to {self.name} is down",
            hint="it is tried again as long as this program runs",
        )

    def _keep(self) -> None:
        try:
            self._keep_up()
        except Exception as error:
            # Else everybody would wait for a connection that nobody makes any more.
            log.exception("what keeps the tunnel to %s ended", self.name)
            if TUNNEL.allows(self._state, TunnelEvent.BROKE):
                failure = TunnelFailed(
                    f"the tunnel to {self.name} is not kept up any more: {_describe(error)}",
                    hint="this is a bug; please report it",
                )
                self._give_up(TunnelEvent.BROKE, failure)

    def _keep_up(self) -> None:
        while (link := self._link) is not None:
            link.watch()
            link.close()
            with self._changed:
                if self._state is TunnelState.CLOSED:
                    return
            self._step(TunnelEvent.LOST, why="the connection was lost")
            self._restore()

    def _restore(self) -> None:
        pause, said = FIRST_PAUSE, ""
        lost = time.monotonic()
        while True:
            with self._changed:
                # Spreads clients that lost the same host at the same time.
                self._changed.wait_for(
                    lambda: self._state is TunnelState.CLOSED,
                    pause * random.uniform(0.5, 1.0),  # noqa: S311
                )
                if self._state is TunnelState.CLOSED:
                    return
            longest = LONGEST_PAUSE
            try:
                link = self._connect()
            except Exception as error:  # noqa: BLE001 - the next try may succeed
                reason = _describe(error)
                if isinstance(error, NotAuthorised):
                    patience = self._give_up_seconds - (time.monotonic() - lost)
                    if patience <= 0 or not isinstance(error, LoginRefused):
                        self._give_up(TunnelEvent.REJECTED, error)
                        return
                    limit = describe_seconds(self._give_up_seconds)
                    reason += f"; tried again for {limit} after the loss (--give-up)"
                    longest = min(LONGEST_REFUSED_PAUSE, patience)
                pause = min(pause * 2, longest)
                if reason != said:
                    said = reason
                    self._tell(self._state, reason)
                continue
            if self._step(TunnelEvent.CONNECTED, link=link, why="connected again") is not None:
                link.close()  # closed while we connected
            return

    def _give_up(self, event: TunnelEvent, failure: SocketpoolError) -> None:
        link = self._step(event, why=failure.message, failure=failure)
        if link is not None:
            link.close()

    def _step(
        self,
        event: TunnelEvent,
        *,
        link: Link | None = None,
        why: str = "",
        failure: SocketpoolError | None = None,
    ) -> Link | None:
        """Make the transition; returns the connection that is no longer wanted."""
        with self._changed:
            if self._state is TunnelState.CLOSED:
                return link
            before, self._link = self._link, link
            self._state = TUNNEL.after(self._state, event)
            self._failure = failure
            self._changed.notify_all()
            state = self._state
        self._tell(state, why)
        return before

    def _tell(self, state: TunnelState, why: str) -> None:
        try:
            self._on_change(state, why)
        except Exception:  # that nobody could be told must not end the tunnel
            log.exception("a change of the tunnel to %s could not be told", self.name)


def describe_seconds(seconds: float) -> str:
    """As options take it: 90s, 5m, 1h."""
    for size, unit in ((3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _describe(error: Exception) -> str:
    if isinstance(error, SocketpoolError):
        return error.message
    return f"unexpectedly {type(error).__name__}: {error}"
