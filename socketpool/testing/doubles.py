"""Services that misbehave on purpose, ready-made, for tests of what a pool does about it.

`write_double` writes one of them as a service's folder into a catalogue; each has the docstring of
its `Double` as its description.  Those that are vendors take part in a round trip.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml


class Double(StrEnum):
    """What the service does wrong."""

    SLOW_TO_START = "slow-to-start"
    """A vendor that needs a moment, `SLOW_SECONDS`, before it listens."""
    NEVER_READY = "never-ready"
    """A vendor that runs and never listens."""
    CRASHES_AT_ONCE = "crashes-at-once"
    """A vendor that ends, with a message and exit code 3, before it ever listens."""
    FLAPS = "flaps"
    """A vendor that becomes ready and then ends, again and again, and works in between."""
    HANGS = "hangs"
    """A vendor that never returns from ``transfer()``."""
    IGNORES_SIGTERM = "ignores-sigterm"
    """A plain program that listens and won't end when it is asked to."""
    ANSWERS_GARBAGE = "answers-garbage"
    """A vendor that answers with bytes that are no block."""
    LEAKS_MEMORY = "leaks-memory"
    """A vendor that takes memory until its limit ends that."""


SLOW_SECONDS = 3
FLAP_SECONDS = 1.0


def write_double(catalogue: Path | str, double: Double, *, name: str = "", **keys: Any) -> Path:
    """Write the double's folder into the catalogue; returns it.

    ``name`` is the service's when it should have another; ``keys`` replace those of its
    ``service.yml``.  Raises FileExistsError.
    """
    folder = Path(catalogue) / (name or str(double))
    folder.mkdir(parents=True)
    service: dict[str, Any] = {"description": f"A double that misbehaves: {double}.", "warm": 1}
    service |= {"max": 1} | _SERVICES[double] | keys
    (folder / "service.yml").write_text(yaml.safe_dump(service, sort_keys=False), encoding="utf-8")
    (folder / "double.py").write_text(_CODE[double], encoding="utf-8")
    return folder


_VENDOR: dict[str, Any] = {"sdk": {"file": "double.py", "class": "Vendor"}, "client": "vendor"}

_SERVICES: dict[Double, dict[str, Any]] = {
    Double.SLOW_TO_START: _VENDOR,
    Double.NEVER_READY: _VENDOR | {"readiness": {"start": "1s"}},
    Double.CRASHES_AT_ONCE: _VENDOR,
    Double.FLAPS: _VENDOR,
    Double.HANGS: _VENDOR | {"limits": {"session_time": "1s"}},
    Double.IGNORES_SIGTERM: {"command": ["{python}", "{folder}/double.py", "{host}", "{port}"]},
    Double.ANSWERS_GARBAGE: _VENDOR,
    Double.LEAKS_MEMORY: _VENDOR | {"limits": {"memory": "512M"}},
}


def _vendor(before: str, transfer: str) -> str:
    return f"""\
{before}

from socketpool.rsi import VendorServer


class Vendor(VendorServer):
    def transfer(self):
        {transfer}
"""


_WORKS = "self.report('works')"

_CODE: dict[Double, str] = {
    Double.SLOW_TO_START: _vendor(f"import time\n\ntime.sleep({SLOW_SECONDS})", _WORKS),
    Double.NEVER_READY: _vendor("import time\n\ntime.sleep(10**6)", _WORKS),
    Double.CRASHES_AT_ONCE: _vendor(
        "import sys\n\nprint('crashing as asked', file=sys.stderr)\nsys.exit(3)", _WORKS
    ),
    # The alarm ends the process that imports this; its sessions don't inherit it.
    Double.FLAPS: _vendor(
        f"import signal\n\nsignal.setitimer(signal.ITIMER_REAL, {FLAP_SECONDS})", _WORKS
    ),
    Double.HANGS: _vendor("import time", "time.sleep(10**6)"),
    Double.IGNORES_SIGTERM: """\
import http.server
import signal
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
address = (sys.argv[1], int(sys.argv[2]))
http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
""",
    Double.ANSWERS_GARBAGE: _vendor("", "self.stream.sendall(bytes(range(255, -1, -1)))"),
    Double.LEAKS_MEMORY: _vendor(
        "KEPT = []", "while True:\n            KEPT.append(bytearray(16 << 20))"
    ),
}
