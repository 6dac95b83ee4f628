"""The round trip of real archives against the ways people do it over ssh.

(a) ``scp`` the archive there, run the same vendor code with ``ssh``, ``scp`` it back; (b) ``rsync``
the unpacked folder there, run the same code on the files, ``rsync`` the folder back.  Both go
through a private sshd on loopback that lives as long as the benchmark; (b) is given its folder
unpacked, for free.  Neither keeps anything at home, verifies anything or undoes anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.pool import BIN, RunningPool, running_pool
from benchmarks.roundtrip import NAIVE
from benchmarks.sshd import SSHD, Sshd, private_sshd

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
ARCHIVES = sorted((ROOT / "tests" / "data").glob("*.zip"))
VENDOR = ROOT / "services" / "vendor"

IN_FOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from vendor import minify_html_text, minify_inside
for path in Path(sys.argv[2]).rglob("*"):
    kind = path.suffix
    if kind in {".html", ".css", ".js"}:
        text = path.read_text(encoding="utf-8")
        made = minify_html_text(text) if kind == ".html" else minify_inside(text, kind)
        if made is not None and len(made) < len(text):
            path.write_text(made, encoding="utf-8", newline="")
"""


def measure(*, quick: bool) -> list[dict[str, Any]]:
    """The rows of the table; none when a peer is missing."""
    missing = [tool for tool in (SSHD, "ssh-keygen", "scp", "rsync") if shutil.which(tool) is None]
    if missing:
        print(f"skipped, not installed: {', '.join(missing)} (openssh-server, rsync)")
        return []
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_pool(warm=2) as pool,
        private_sshd(Path(folder)) as sshd,
    ):
        for archive in ARCHIVES:
            rows += _compare(archive, pool, sshd, Path(folder), rounds=3 if quick else 11)
    return rows


def _compare(
    archive: Path, pool: RunningPool, sshd: Sshd, folder: Path, *, rounds: int
) -> list[dict[str, Any]]:
    work = folder / archive.stem
    unpacked = work / "pristine"
    with zipfile.ZipFile(archive) as file:
        file.extractall(unpacked)
    acts: dict[str, tuple[Callable[[], None], Callable[[], float]]] = {
        "socketpool_client": (lambda: _ours(pool, work), pool.cpu_seconds),
        "scp + ssh + scp": (lambda: _by_scp(archive, sshd, work), sshd.cpu_seconds),
        "rsync both ways": (lambda: _by_rsync(sshd, work), sshd.cpu_seconds),
    }
    turns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, (act, server_cpu) in acts.items():
            shutil.rmtree(work / "here", ignore_errors=True)
            shutil.rmtree(work / "there", ignore_errors=True)
            shutil.copytree(unpacked, work / "here")
            (work / "there").mkdir()
            shutil.copy(archive, work / "site.zip")
            turns[name].append(_timed(act, server_cpu))
    ours = median(wall for wall, _, _ in turns["socketpool_client"])
    return [
        {
            "archive": archive.name,
            "what": name,
            "wall s": median(wall for wall, _, _ in taken),
            "client CPU s": median(cpu for _, cpu, _ in taken),
            "server CPU s": median(cpu for _, _, cpu in taken),
            "wall against ours": median(wall for wall, _, _ in taken) / ours,
        }
        for name, taken in turns.items()
    ]


def _timed(act: Callable[[], None], server_cpu: Callable[[], float]) -> tuple[float, float, float]:
    before, server, clock = os.times(), server_cpu(), time.perf_counter()
    act()
    wall, after = time.perf_counter() - clock, os.times()
    time.sleep(0.2)  # until the server has reaped whom it forked
    return wall, sum(after[2:4]) - sum(before[2:4]), server_cpu() - server


def _ours(pool: RunningPool, work: Path) -> None:
    _run(
        *(BIN / "socketpool_client", "127.0.0.1", pool.port, work / "site.zip"),
        *("upload", "vendor", "download", "--state-dir", pool.state),
    )


def _by_scp(archive: Path, sshd: Sshd, work: Path) -> None:
    there = work / "there"
    (work / "naive.py").write_text(NAIVE, encoding="utf-8")
    command = f"{sys.executable} {work}/naive.py {VENDOR} {there}/old.zip {there}/new.zip"
    _run("scp", "-q", "-F", sshd.config, archive, f"there:{there}/old.zip")
    _run("ssh", "-F", sshd.config, "there", command)
    _run("scp", "-q", "-F", sshd.config, f"there:{there}/new.zip", work / "site.zip")


def _by_rsync(sshd: Sshd, work: Path) -> None:
    (work / "folder.py").write_text(IN_FOLDER, encoding="utf-8")
    shell = f"ssh -F {sshd.config}"
    _run("rsync", "-az", "-e", shell, f"{work}/here/", f"there:{work}/there/")
    _run(
        *("ssh", "-F", sshd.config, "there"),
        f"{sys.executable} {work}/folder.py {VENDOR} {work}/there",
    )
    _run("rsync", "-az", "-e", shell, f"there:{work}/there/", f"{work}/here/")


def _run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
