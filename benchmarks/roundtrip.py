"""The whole round trip of a real archive: wall and CPU seconds.

The peer does the same work without any of our promises: it unpacks the archive with Python's
zipfile, runs the same vendor code on all it knows, and packs everything again.  ``cp`` is there as
the floor.  All are run in turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.pool import BIN, RunningPool, running_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    Turn = tuple[float, float, float]

ARCHIVE = Path(__file__).resolve().parent.parent / "tests" / "data" / "webflow-site.zip"

NAIVE = """
import sys, zipfile
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from vendor import minify_html_text, minify_inside
source, target = sys.argv[2:]
with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
    for info in old.infolist():
        data, kind = old.read(info), Path(info.filename).suffix
        if kind in {".html", ".css", ".js"}:
            text = data.decode()
            made = minify_html_text(text) if kind == ".html" else minify_inside(text, kind)
            data = data if made is None else made.encode()
        new.writestr(info, data)
"""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table."""
    turns: dict[str, list[Turn]] = {"socketpool_client": [], "zipfile by hand": [], "cp": []}
    with running_pool(warm=2) as pool, tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        acts: dict[str, Callable[[], None]] = {
            "socketpool_client": lambda: _round_trip(pool, scratch),
            "zipfile by hand": lambda: _by_hand(scratch),
            "cp": lambda: _copy(scratch),
        }
        for _ in range(3 if quick else 15):
            for name, act in acts.items():
                turns[name].append(_timed(pool, act))
    peer = turns["zipfile by hand"]
    return [
        {
            "what": name,
            "wall s": median(wall for wall, _, _ in taken),
            "client CPU s": median(cpu for _, cpu, _ in taken),
            "server CPU s": median(server for _, _, server in taken),
            "wall against by hand": median(w for w, _, _ in taken) / median(w for w, _, _ in peer),
        }
        for name, taken in turns.items()
    ]


def _timed(pool: RunningPool, act: Callable[[], None]) -> Turn:
    before, server, clock = os.times(), pool.cpu_seconds(), time.perf_counter()
    act()
    wall, after = time.perf_counter() - clock, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])  # of children that have ended
    return wall, cpu, pool.cpu_seconds() - server


def _round_trip(pool: RunningPool, scratch: Path) -> None:
    target = scratch / "site.zip"
    shutil.copy(ARCHIVE, target)
    _run(
        *(BIN / "socketpool_client", "127.0.0.1", pool.port, target),
        *("upload", "vendor", "download", "--state-dir", pool.state),
    )


def _by_hand(scratch: Path) -> None:
    services = ARCHIVE.parent.parent.parent / "services" / "vendor"
    _run(sys.executable, "-c", NAIVE, services, ARCHIVE, scratch / "naive.zip")


def _copy(scratch: Path) -> None:
    _run("cp", ARCHIVE, scratch / "copy.zip")


def _run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
