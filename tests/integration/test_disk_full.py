"""An instance whose disk is full: refusals with a reason, and work again once there is room."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.policy import find_policy
from socketpool.archive.sources import open_source
from socketpool.client.serviceclients import UploadClient
from socketpool.errors import ArchiveError, FileRefused
from socketpool.protocol.filesource import OpenFile
from socketpool.protocol.frames import Kind, read_header, read_text, send, send_header
from socketpool.protocol.session import await_event, errors_of_service
from socketpool.protocol.transfer import FileTransfer
from socketpool.system.filerange import FileRange
from tests.support.instances import Instance, running_instance
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from socketpool.credentials.tokens import LeaseClaim

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

SERVICES = Path(__file__).parents[2] / "services"
DISK = 8 << 20
MIB = 1 << 20


def make_archive(path: Path, content: bytes) -> Path:
    """An archive as a client sends it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("data.js", content)
    client = UploadClient()
    with open_source(path) as source:
        client.prepare(source, find_policy(path, None))
        segments = [
            os.pread(part.fd, part.length, part.offset) if isinstance(part, FileRange) else part
            for part in client.imploded.segments()
        ]
    path.write_bytes(b"".join(segments))
    return path


def upload(instance: Instance, claim: LeaseClaim, archive: Path) -> None:
    with archive.open("rb") as file, instance.session(claim) as stream:
        source = OpenFile(file.fileno(), archive.stat().st_size)
        with errors_of_service():
            FileTransfer(source, os.urandom(16)).run(stream)
        await_event(stream, "done")


def end(instance: Instance, claim: LeaseClaim) -> None:
    shutil.rmtree(instance.workspaces / claim.lease)


def left(instance: Instance, claim: LeaseClaim) -> set[str]:
    return {p.name for p in (instance.workspaces / claim.lease).iterdir()}


def test_what_does_not_fit_is_refused_before_it_travels(tmp_path: Path) -> None:
    big = make_archive(tmp_path / "big.zip", os.urandom(5 * MIB))
    with running_instance(tmp_path, SERVICES / "upload" / "upload.py", "Upload", disk=DISK) as it:
        first, second = it.lease(), it.lease()
        upload(it, first, big)
        with pytest.raises(FileRefused, match="no room for") as caught:
            upload(it, second, big)
        assert caught.value.exit_code == 6
        assert left(it, second) == {"lock"}
        end(it, first)
        upload(it, second, big)
        assert "incoming.zip" in left(it, second)


def test_a_disk_that_fills_up_on_the_way_is_told_with_its_reason(tmp_path: Path) -> None:
    """Both were promised room; only one can have it."""
    content = make_archive(tmp_path / "big.zip", os.urandom(5 * MIB)).read_bytes()
    digest_is_never_reached = bytes(32)
    with running_instance(tmp_path, SERVICES / "upload" / "upload.py", "Upload", disk=DISK) as it:
        first, second = it.lease(), it.lease()
        with it.session(first) as one, it.session(second) as other:
            for stream in (one, other):
                send_header(stream, Kind.FILE, len(content), os.urandom(16))
                assert read_header(stream) == (Kind.GO, 0)
            send(one, content[: 5 * MIB])
            (part,) = (it.workspaces / first.lease).glob(".incoming.zip.*.part")
            eventually(lambda: part.stat().st_size == 5 * MIB, "what the first has sent, stored")
            send(other, content)
            send(other, digest_is_never_reached)
            kind, length = read_header(other)
            assert kind is Kind.REFUSAL
            assert "No space left on device" in read_text(other, length)
        assert left(it, second) == {"lock"}
        end(it, first)
        upload(it, second, tmp_path / "big.zip")


def test_a_vendor_without_room_fails_and_works_once_there_is_some(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "site.zip", bytes(4 * MIB))
    code = tmp_path / "vendor.py"
    code.write_text(
        "from socketpool.rsi import VendorServer\n\n"
        "class Vendor(VendorServer):\n"
        "    def transfer(self):\n"
        "        for path in self.members.values():\n"
        "            path.write_bytes(b'processed')\n"
    )
    with running_instance(tmp_path, code, "Vendor", disk=DISK) as it:
        hog, claim = it.lease(), it.lease()
        shutil.copy(archive, it.workspaces / claim.lease / "incoming.zip")
        (it.workspaces / hog.lease / "hog").write_bytes(bytes(6 * MIB))
        with it.session(claim) as stream, pytest.raises(ArchiveError) as caught:
            await_event(stream, "done")
        assert "no room" in caught.value.message
        assert caught.value.exit_code == 6
        end(it, hog)
        with it.session(claim) as stream:
            assert await_event(stream, "done")["detail"]["changed"] == 1
