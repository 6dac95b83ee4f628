"""Deletes what programs left behind, whatever its permissions and depth."""

from __future__ import annotations

import os


def wipe(path: str | os.PathLike[str]) -> None:
    """Delete a file, a link or a tree, whatever programs made of it; what can't be deleted stays.

    No link is followed, closed folders are opened, and each folder is moved up before it is
    emptied: one tree may be deeper than calls may be nested or a path may be long.
    """
    root = os.fspath(path)
    pending = [root]
    if os.path.islink(root) or not os.path.isdir(root):
        pending = []
        try:
            os.unlink(root)
        except OSError:
            pass
    while pending:
        folder = pending.pop()
        try:
            os.chmod(folder, 0o700)
            with os.scandir(folder) as listed:
                entries = list(listed)
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    pending.append(f"{root}/{os.urandom(8).hex()}")
                    os.rename(entry.path, pending[-1])
                else:
                    os.unlink(entry.path)
            if folder != root:
                os.rmdir(folder)
        except OSError:
            pass
    try:
        os.rmdir(root)
    except OSError:
        pass
