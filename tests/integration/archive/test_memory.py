"""Memory grows with the number of members, and not at all with their size."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.archives import Spec, build, canonical
from tests.unit.archive.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

MERGE = """
import sys
from array import array
from pathlib import Path
from socketpool.archive.implode import implode_zip
from socketpool.archive.merge import merge
from socketpool.archive.reader import Archive
original, returned, output = map(Path, sys.argv[1:])
with Archive.open(original) as archive:
    imploded = implode_zip(archive, array("I", range(len(archive))))
    for segment in imploded.segments():
        pass
merge(original, returned, imploded.manifest, output=output)
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]))
"""


@pytest.mark.parametrize(("members", "size"), [(50_000, 10), (20, 10_000_000)])
def test_peak(members: int, size: int, tmp_path: Path) -> None:
    specs = [Spec(b"folder/page%d.html" % at, bytes(size), method=0) for at in range(members)]
    engine = Engine(tmp_path)
    engine.original.write_bytes(build(specs, zip64_end=True).data)
    new = {spec.name: b"x" * size for spec in specs[::10]}
    engine.returned.write_bytes(canonical(new, method=0))
    files = (engine.original, engine.returned, tmp_path / "out.zip")
    command = [sys.executable, "-c", MERGE, *map(str, files)]
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert int(done.stdout) * 1024 <= 20 * 1024 * 1024 + 300 * members
