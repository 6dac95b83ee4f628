"""What is measured, each in a process of its own: ``python -m benchmarks.archive.operations NAME``.

Prints the CPU and wall seconds of the operation alone as JSON; the caller sees the whole process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run one operation on ORIGINAL, RETURNED and OUTPUT."""
    name, *paths = sys.argv[1:]
    original, returned, output = map(Path, paths)
    steps = {"merge": merge, "implode": implode, "zipfile": naive}[name](original, returned, output)
    sys.stdout.write(json.dumps({"steps": steps, "peak_kib": peak()}))


def peak() -> int:
    """This process's own peak; what rusage says may be that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def timed(steps: dict[str, list[float]], step: str, work: Callable[[], object]) -> object:
    """Do ``work`` and note its CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    steps[step] = [time.process_time() - cpu, time.perf_counter() - wall]
    return result


def merge(original: Path, returned: Path, output: Path) -> dict[str, list[float]]:
    """Merge to another file, as ``cp`` and the others do; everything is verified and synced."""
    from array import array

    from socketpool.archive.implode import implode_zip
    from socketpool.archive.merge import merge as run
    from socketpool.archive.reader import Archive

    with Archive.open(original) as archive:
        manifest = implode_zip(archive, array("L", range(len(archive)))).manifest
    steps: dict[str, list[float]] = {}
    timed(steps, "merge", lambda: run(original, returned, manifest, output=output))
    return steps


def implode(original: Path, _: Path, output: Path) -> dict[str, list[float]]:
    """Plan and implode everything the shipped policy allows, into a file."""
    from socketpool.archive.implode import copy_segments, implode_zip
    from socketpool.archive.plan import make_plan
    from socketpool.archive.policy import default_policy
    from socketpool.archive.reader import Archive
    from socketpool.archive.sources import ZipSource

    steps: dict[str, list[float]] = {}
    with ZipSource(original) as source:
        plan = make_plan(source, default_policy())

    def run() -> None:
        with Archive.open(original) as archive, output.open("wb") as out:
            copy_segments(implode_zip(archive, plan.sent), out.fileno())

    def planned() -> None:
        with ZipSource(original) as source:
            make_plan(source, default_policy())

    timed(steps, "implode", run)
    timed(steps, "plan", planned)
    return steps


def naive(original: Path, returned: Path, output: Path) -> dict[str, list[float]]:
    """What most scripts do: read every member and write it again."""
    import zipfile

    steps: dict[str, list[float]] = {}

    def run() -> None:
        with (
            zipfile.ZipFile(original) as old,
            zipfile.ZipFile(returned) as new,
            zipfile.ZipFile(output, "w") as out,
        ):
            fresh = set(new.namelist())
            for info in old.infolist():
                source = new if info.filename in fresh else old
                out.writestr(info, source.read(info.filename))

    timed(steps, "merge", run)
    return steps


if __name__ == "__main__":
    main()
