"""Places at which a process stops until the test lets it go on: to find it in the middle of things.

A gate is armed by a file, and stops whoever comes first; later ones pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.pools import shipped
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

STOP = """
import os, time
from pathlib import Path

def stop_at(gate):
    folder = Path(os.environ["GATES"])
    armed, held = folder / f"{gate}.armed", folder / f"{gate}.held"
    mine = folder / f"{gate}.{os.getpid()}"
    mine.write_text(str(os.getpid()))
    try:
        armed.unlink()
    except FileNotFoundError:
        mine.unlink()
        return
    mine.replace(held)
    while held.exists():
        time.sleep(0.02)

def midway(gate):
    return lambda done, total: stop_at(gate) if 2 * done > total else None
"""

UPLOAD = """
from socketpool.rsi import ServiceServer
from socketpool.protocol import blocks

class Upload(ServiceServer):
    def transfer(self):
        self.workspace.forget_steps()
        blocks.write_file_block(
            self.stream, self.workspace.incoming, max_size=1 << 30, progress=midway("upload")
        )
        stop_at("uploaded")
"""

VENDOR = """
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        for path in self.members.values():
            with path.open("r+b") as file:
                file.write(b"processed")
            self.progress(1, len(self.members))
            stop_at("vendor")
"""

DOWNLOAD = """
import hashlib
from socketpool.rsi import ServiceServer
from socketpool.protocol import blocks
from socketpool.protocol.filesource import OpenFile

class Download(ServiceServer):
    def transfer(self):
        outgoing = self.workspace.outgoing
        with outgoing.open("rb") as file:
            blocks.send_file_block(
                self.stream,
                OpenFile(file.fileno(), outgoing.stat().st_size),
                transfer_id=hashlib.sha256(outgoing.name.encode()).digest()[:16],
                progress=midway("download"),
            )
        stop_at("downloaded")
"""

HOOK = """
import os
from socketpool.archive import commit

def is_implodable(member):
    stop_at("judging")
    return False

def renaming(rename):
    def stopped(*args, **kwargs):
        stop_at("merged")
        rename(*args, **kwargs)
        stop_at("committed")
    return stopped

os.rename = renaming(os.rename)
"""
"""For the client: the archive is put in its place by the one rename there is."""


class Gates:
    """The gates in a folder of a test; give it to the processes as the variable ``GATES``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "hook.py").write_text(STOP + HOOK)

    @property
    def hook(self) -> Path:
        """For ``--hook``: gates in the client."""
        return self.folder / "hook.py"

    def trio(self, **more: Any) -> dict[str, dict[str, Any]]:
        """Upload, vendor and download as they are shipped, but with gates."""
        codes = {"upload": UPLOAD, "vendor": VENDOR, "download": DOWNLOAD}
        with_gates = {"environment": {"GATES": str(self.folder)}} | more
        return {name: shipped(name, STOP + code) | with_gates for name, code in codes.items()}

    def arm(self, gate: str) -> None:
        (self.folder / f"{gate}.armed").touch()

    def await_held(self, gate: str) -> int:
        """The process that stands at the gate, once there is one."""
        held = self.folder / f"{gate}.held"
        eventually(held.exists, f"somebody at the gate {gate}")
        return int(held.read_text())

    def open(self, gate: str) -> None:
        """Let them go on, if they live."""
        (self.folder / f"{gate}.held").unlink()
