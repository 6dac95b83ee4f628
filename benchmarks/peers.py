"""The round trip of real archives against the ways people do it over ssh.

(a) ``scp`` the archive there, run the same vendor code with ``ssh``, ``scp`` it back; (b) ``rsync``
the unpacked folder there, run the same code on the files, ``rsync`` the folder back.  Both go
through a private sshd on loopback that lives as long as the benchmark; (b) is given its folder
unpacked, for free.  Neither keeps anything at home, verifies anything or undoes anything.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from benchmarks.pool import BIN, RunningPool, running_pool
from benchmarks.roundtrip import NAIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
ARCHIVES = sorted((ROOT / "tests" / "data").glob("*.zip"))
VENDOR = ROOT / "services" / "vendor"
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

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

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""

SSH_CONFIG = """\
Host there
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


class Sshd(NamedTuple):
    """The private sshd, and the file by which clients find it."""

    process: subprocess.Popen[bytes]
    config: Path

    def cpu_seconds(self) -> float:
        """CPU that it and all whom it served have used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system + times.children_user + times.children_system


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
        _private_sshd(Path(folder)) as sshd,
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


@contextmanager
def _private_sshd(folder: Path) -> Iterator[Sshd]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    key = (folder / "host.pub").read_text(encoding="ascii")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}", encoding="ascii")
    values = {"port": port, "folder": folder, "user": getpass.getuser()}
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(**values), encoding="utf-8")
    (folder / "ssh_config").write_text(SSH_CONFIG.format(**values), encoding="utf-8")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    process = subprocess.Popen(
        [SSHD, "-D", "-f", folder / "sshd_config"], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield Sshd(process, folder / "ssh_config")
    finally:
        process.terminate()
        process.wait()


def _run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True)
