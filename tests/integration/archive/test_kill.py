"""A merge that is killed leaves the old archive or the new one, and the next one sweeps up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from socketpool.archive.manifest import Manifest
from socketpool.archive.merge import merge
from tests.support.archives import Spec, build, canonical
from tests.unit.archive.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

POINTS = 50
MERGE = """
import sys
from pathlib import Path
from socketpool.archive.manifest import Manifest
from socketpool.archive.merge import merge
original, returned, manifest = map(Path, sys.argv[1:])
read = Manifest.read(manifest)
print("go", flush=True)
merge(original, returned, read)
"""


def test_killed_anywhere(tmp_path: Path) -> None:
    specs = [Spec(b"%d.html" % at, os.urandom(9_000), method=0) for at in range(1_500)]
    data = build(specs).data
    engine = Engine(tmp_path)
    _, manifest = engine.implode(data)
    manifest_path = tmp_path / "manifest"
    manifest.write(manifest_path)
    new = {spec.name: spec.data[::-1] for spec in specs[::2]}
    engine.returned.write_bytes(canonical(new))
    copy = tmp_path / "copy.zip"
    merge(engine.original, engine.returned, manifest, output=copy)
    merged = copy.read_bytes()
    copy.unlink()
    command = [sys.executable, "-c", MERGE, engine.original, engine.returned, manifest_path]
    _put(data, manifest, engine.original)
    start = time.monotonic()
    _run(command, None)
    longest = time.monotonic() - start
    outcomes = {"old": 0, "new": 0}
    chance = random.Random(20)
    for _ in range(POINTS):
        _put(data, manifest, engine.original)
        _run(command, chance.uniform(0, longest * 0.7))
        found = engine.original.read_bytes()
        assert found in (data, merged)
        outcomes["new" if found == merged else "old"] += 1
    assert outcomes["old"] > 0
    _put(data, manifest, engine.original)
    merge(engine.original, engine.returned, Manifest.read(manifest_path))
    assert engine.original.read_bytes() == merged
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest",
        "original.zip",
        "returned.zip",
    ]


def _put(data: bytes, manifest: Manifest, path: Path) -> None:
    """Put the old archive back, with the time it had: its inode may come to be used again."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    os.utime(fresh, ns=(manifest.identity.modified, manifest.identity.modified))
    fresh.replace(path)


def _run(command: list[object], kill_after: float | None) -> None:
    """Run the merge; the clock starts when its own work does."""
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:  # type: ignore[arg-type]
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        process.wait()
