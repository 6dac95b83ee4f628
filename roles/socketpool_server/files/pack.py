"""Pack a folder of services the same way everywhere: same contents, same archive, same digest.

``pack.py FOLDER [ARCHIVE]`` prints the digest, and writes the tar archive if one is named.
"""

import hashlib
import io
import pathlib
import sys
import tarfile


def normal(entry: tarfile.TarInfo) -> "tarfile.TarInfo | None":
    """Without what differs from machine to machine; None for what Python leaves lying about."""
    if pathlib.PurePath(entry.name).name == "__pycache__":
        return None
    executable = entry.isdir() or entry.mode & 0o100
    entry.mode = 0o750 if executable else 0o640
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def main(folder: str, archive: str = "") -> None:
    """Print the digest of the packed folder; of one that is missing, that of nothing."""
    packed = io.BytesIO()
    root = pathlib.Path(folder)
    if root.is_dir():
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as out:
            for path in sorted(root.iterdir()):
                out.add(path, arcname=path.name, filter=normal)
    if archive:
        pathlib.Path(archive).write_bytes(packed.getvalue())
    print(hashlib.sha256(packed.getvalue()).hexdigest())  # noqa: T201 - this is its output


if __name__ == "__main__":
    main(*sys.argv[1:])
