"""What the commands that serve in the foreground share: being stopped, a port, and warnings."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from socketpool.cli.base import say
from socketpool.system.hostfacts import is_loopback
from socketpool.system.sockets import open_socket

if TYPE_CHECKING:
    from types import FrameType


class StopRequested(Exception):
    """A signal asked us to stop."""


class ReloadRequested(Exception):
    """SIGHUP asked us to read the configuration again."""


class Stopper:
    """Hears the signals that end a command, which take effect in `check` and `wait` only.

    The signal handler only takes a note: an exception raised in it could come up anywhere, where a
    library swallows it or leaves a lock taken.  With ``reloads``, and where the process has no
    terminal, SIGHUP raises `ReloadRequested`.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        self._stop = self._reload = False
        self._reloads = reloads and not _has_terminal()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """From now on."""
        # Written to by whatever thread the kernel gives the signal to; it need not be the one that
        # waits, which would sleep on.
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Raise `StopRequested` when a signal asked for it."""
        if self._stop:
            raise StopRequested

    def wait(self, descriptor: int) -> None:
        """Return when it can be read from; raises `StopRequested` and `ReloadRequested`."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            self.check()
            if self._reload:
                self._reload = False
                raise ReloadRequested
            ready = [fd for fd, _ in poll.poll()]
            if self._wake in ready:
                os.read(self._wake, 4096)  # by now the handlers of those signals have run
            elif ready:
                return

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP and self._reloads:
            self._reload = True
        else:
            self._stop = True


def _has_terminal() -> bool:
    """Whether this process has a terminal, whose end it is told by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def free_port(host: str) -> int:
    """A port of a numeric address that nobody listens on at this moment."""
    with open_socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def warn_root() -> None:
    """Services should not run as root."""
    if os.geteuid() == 0:
        say("warning: running as root, and so will every service; use an account of its own")


def warn_exposed(what: str, host: str) -> None:
    """Nothing is encrypted."""
    if not is_loopback(host):
        say(
            f"warning: the {what} will listen on {host}: what clients send can be read on the "
            "network; keep to 127.0.0.1 and let clients come through an SSH tunnel"
        )
