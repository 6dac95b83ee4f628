"""What the commands that serve in the foreground share: being stopped, a port, and warnings."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from socketpool.cli.base import say
from socketpool.config.hostfacts import is_loopback
from socketpool.sockets import open_socket

if TYPE_CHECKING:
    from types import FrameType


class Stop(Exception):
    """A signal asked us to stop."""


class Stopper:
    """Raises `Stop` at the first signal; more of them must not disturb the stopping."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """From now on."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
            raise Stop


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
