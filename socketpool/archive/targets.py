"""Whether a result can be put where it is to go: known before anything is sent.

What is found here would be refused at the end as well (:mod:`socketpool.archive.commit`), when a
service has already done its work.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from socketpool.archive.commit import check_writable
from socketpool.archive.names import show
from socketpool.archive.refusals import CannotPreserve, CommitFailed, NoSpace

if TYPE_CHECKING:
    from pathlib import Path


def check_target(path: Path) -> None:
    """Refuse a file that can't be replaced: read-only, of somebody else, in such a folder."""
    check_writable(path)
    _check_folder(path.parent, f"The folder of {show(os.fsencode(path.name))}")
    owner = path.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise CannotPreserve(
            f"The file {show(os.fsencode(path.name))} belongs to another user, whose it would not"
            " stay.",
            hint="Run as the file's owner, or write another file with --output.",
        )


def check_place(output: Path, original: Path) -> None:
    """Refuse an output that can't be written; that of a folder must not exist yet."""
    shown = show(os.fsencode(output))
    parent = output.absolute().parent
    if not parent.is_dir():
        raise CommitFailed(
            f"{shown} can't be written: {show(os.fsencode(parent))} is not a folder.",
            hint="Name another --output, or make the folder.",
        )
    _check_folder(parent, f"The folder of {shown}")
    if original.is_dir():
        if os.path.lexists(output):
            raise CommitFailed(f"{shown} exists already.", hint="Name another --output.")
        if original.resolve() in output.absolute().parent.resolve().joinpath("x").parents:
            raise CommitFailed(
                f"{shown} lies within the folder itself.", hint="Name another --output."
            )
    elif output.is_dir():
        raise CommitFailed(f"{shown} is a folder.", hint="Name another --output.")
    elif output.exists():
        check_writable(output)


def check_room(place: Path, size: int) -> None:
    """Refuse when the file system has no room for so many more bytes."""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free < size:
        raise NoSpace(
            f"There is no room for the result: {show(os.fsencode(place))} has {free:,} bytes free,"
            f" and {size:,} are needed.",
            hint="Free some space, or write to another disk with --output. Nothing was sent.",
        )


def _check_folder(folder: Path, what: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommitFailed(
            f"{what} is read-only.",
            hint="Make it writable, or write another file with --output.",
        )
