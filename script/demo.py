"""The main job as a user does it, on a copy of a real archive: see ``script/demo``."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ARCHIVE = Path(__file__).resolve().parent.parent / "examples" / "site.zip"
BIN = Path(sys.executable).parent
PORTS = "21000-21499"


def main() -> int:
    """Run the demonstration; returns the exit code."""
    scratch = Path(tempfile.mkdtemp(prefix="socketpool-demo-"))
    try:
        site = scratch / "site.zip"
        shutil.copy(ARCHIVE, site)
        before = digests(site)
        server, port = start_server(scratch / "state")
        try:
            command = ["socketpool_client", "127.0.0.1", port, str(site)]
            command += ["upload", "vendor", "download"]
            show(f"$ {' '.join(command)}")
            run(*command, "--state-dir", str(scratch / "state"))
            show("\n$ supervisorctl status      (the pool, while it runs)")
            run("supervisorctl", "-c", str(scratch / "state" / "supervisord.conf"), "status")
        finally:
            stop(server)
        compare(before, digests(site))
    finally:
        shutil.rmtree(scratch)
    show("\nEverything was stopped and nothing was left behind. To look further:")
    show(f"  {BIN}/socketpool_server 127.0.0.1 8080 {PORTS}        # a pool of your own")
    show(f"  {BIN}/socketpool_client --help                        # the client's HOWTO")
    show("  services/vendor/vendor.py                             # the code a vendor edits")
    return 0


def start_server(state: Path) -> tuple[subprocess.Popen[str], str]:
    """A pool on loopback on a port of its own choice; returns it and the port."""
    command = [str(BIN / "socketpool_server"), "127.0.0.1", "0", PORTS, "--state-dir", str(state)]
    show(f"$ socketpool_server 127.0.0.1 0 {PORTS}")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = ""
    for line in server.stdout:
        show(line.rstrip())
        if line.startswith("pool ready"):
            port = line.split()[-1]
        if line.startswith("stop it"):
            break
    if not port:
        sys.exit(server.wait() or 1)
    show("")
    return server, port


def stop(server: subprocess.Popen[str]) -> None:
    """What Ctrl-C does."""
    server.send_signal(signal.SIGINT)
    server.wait(timeout=60)


def run(*command: str) -> None:
    """Run one of our commands; ends the demonstration with its exit code if it fails."""
    result = subprocess.run([str(BIN / command[0]), *command[1:]], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def digests(archive: Path) -> dict[str, str]:
    """The digest of every member's content."""
    with zipfile.ZipFile(archive) as file:
        return {i.filename: hashlib.sha256(file.read(i)).hexdigest() for i in file.infolist()}


def compare(before: dict[str, str], after: dict[str, str]) -> None:
    """Check the promise with another program's eyes."""
    if list(before) != list(after):
        sys.exit("the archive's members are not the same: this is a bug")
    same = [name for name in before if before[name] == after[name]]
    images = [n for n in before if Path(n).suffix in {".jpg", ".jpeg", ".png", ".svg", ".gif"}]
    if not set(images) <= set(same):
        sys.exit("an image was changed: this is a bug")
    show(
        f"\nchecked with Python's zipfile: {len(before)} members as before, "
        f"{len(before) - len(same)} with new content, all {len(images)} images untouched"
    )


def show(text: str) -> None:
    """A line of the demonstration, in step with what the commands print."""
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
