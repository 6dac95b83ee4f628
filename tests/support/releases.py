"""Releases that differ from a given one, to upgrade to: ``variants.py ARCHIVE FOLDER``.

``next`` is sound, the pool server of ``broken`` does not start, and the vendor of ``sick`` fails
while all else works.  Each is the given archive with another wheel of ours in it.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path

FAIL = "\nraise SystemExit('this release is made to fail')\n"
VARIANTS = {
    "next": ("99.1", None),
    "broken": ("99.2", "socketpool/server/api/app.py"),
    "sick": ("99.3", "socketpool/catalogue/vendor/vendor.py"),
}


def make(archive: Path, folder: Path) -> None:
    """Write ``socketpool-<version>-<hash>.tar`` for each, and a link of the variant's name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as given:
        members = {
            entry.name: (entry, given.extractfile(entry).read())  # type: ignore[union-attr]
            for entry in given
            if entry.isfile()
        }
    name = next(n for n in members if re.search(r"/socketpool-[^/]+\.whl$", n))
    for variant, (version, spoiled) in VARIANTS.items():
        wheel = altered(members[name][1], version, spoiled)
        digest = hashlib.sha256(wheel).hexdigest()
        requirements = re.sub(
            r"(?m)^(socketpool\[.*\]==).*$",
            rf"\g<1>{version} --hash=sha256:{digest}",
            members["./requirements.txt"][1].decode(),
        )
        changed = {
            **{n: data for n, (_, data) in members.items() if n != name},
            f"./wheels/socketpool-{version}-py3-none-any.whl": wheel,
            "./requirements.txt": requirements.encode(),
        }
        out = folder / f"socketpool-{version}-{digest[:12]}.tar"
        write(out, changed, executable=("./install", "./link"))
        link = folder / f"{variant}.tar"
        link.unlink(missing_ok=True)
        link.symlink_to(out.name)


def altered(wheel: bytes, version: str, spoiled: str | None) -> bytes:
    """The wheel as another version, with a line that fails after one of its files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as old, zipfile.ZipFile(packed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            name = re.sub(
                r"^socketpool-[^/]+\.dist-info", f"socketpool-{version}.dist-info", entry.filename
            )
            if name.endswith(".dist-info/METADATA"):
                data = re.sub(rb"(?m)^Version: .*$", b"Version: " + version.encode(), data)
            if name.endswith(".dist-info/RECORD"):
                data = re.sub(
                    rb"(?m)^socketpool-[^/]+\.dist-info",
                    f"socketpool-{version}.dist-info".encode(),
                    data,
                )
            if name == spoiled:
                data += FAIL.encode()
            new.writestr(name, data)
    return packed.getvalue()


def write(path: Path, members: dict[str, bytes], *, executable: tuple[str, ...]) -> None:
    """A tar archive of files."""
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if name in executable else 0o644
            out.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
