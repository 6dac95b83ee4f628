"""What the commands that serve in the foreground share: being stopped, a port, and warnings."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from socketpool.cli.base import say
from socketpool.config.hostfacts import is_loopback
from socketpool.sockets import open_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Stop(Exception):
    """A signal asked us to stop."""


class Reload(Exception):
    """SIGHUP asked us to read the configuration again."""


class Stopper:
    """Raises `Stop` at the first signal; more of them must not disturb the stopping.

    With ``reloads`` SIGHUP is no such signal where there is no terminal that could be closed: it
    raises `Reload`, but only within `wait`.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        self.asked = False
        self._reloads = reloads and not _has_terminal()
        self._waiting = False
        self._reload_asked = False

    def listen(self) -> None:
        """From now on."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)

    def wait(self, end: Callable[[], None]) -> None:
        """Do ``end``, which returns when there is nothing to wait for any more."""
        try:
            self._waiting = True
            if self._reload_asked:  # while something else was done
                raise Reload
            end()
        finally:
            self._waiting = self._reload_asked = False

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP and self._reloads:
            self._reload_asked = True
            if self._waiting and not self.asked:
                self._waiting = False
                raise Reload
        elif not self.asked:
            self.asked = True
            raise Stop


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
