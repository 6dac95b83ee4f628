"""Run with ``python -m benchmarks.archive [--quick]``; prints a table and writes it as JSON.

All contenders run in turn, round after round, so that a noisy machine is noisy to all of them; the
table has medians.  CPU is what a process and its children used, from start to end; for ours the
operation alone is given too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.archive.workloads import Workload, make_workloads

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parents[1] / "results"
SLOW = ("zipfile", "zip -u", "7z u")
"""Minutes each on a large archive, and far from anything a median could change: run once."""
QUADRATIC = "zip -U"
"""Takes minutes for the names of 100,000 members; not run on so many."""


class Run(NamedTuple):
    """One run of one contender."""

    cpu: float
    wall: float
    peak: int
    steps: dict[str, list[float]]


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    contenders = _contenders()
    missing = [name for name, tool in _TOOLS.items() if shutil.which(tool) is None]
    rows = []
    with tempfile.TemporaryDirectory(prefix="socketpool-benchmark-", dir=_roomy()) as scratch:
        for load in make_workloads(Path(scratch), quick=options.quick):
            found = _measure(load, contenders, options.rounds, Path(scratch) / "out.zip")
            _print(load, found)
            rows += found
    print(f"\nNot installed: {', '.join(missing) or 'none'}")
    RESULTS.mkdir(exist_ok=True)
    result = {"quick": options.quick, "rounds": options.rounds, "missing": missing, "rows": rows}
    (RESULTS / "archive.json").write_text(json.dumps(result, indent=2) + "\n")


Command = list[str | Path]
Row = dict[str, Any]
_TOOLS = {"zip -u": "zip", "zip -U": "zip", "7z u": "7z", "zipmerge": "zipmerge"}


def _contenders() -> dict[str, Callable[[Workload, Path], Command]]:
    def ours(operation: str) -> Callable[[Workload, Path], Command]:
        module = "benchmarks.archive.operations"
        return lambda load, out: [
            sys.executable, "-m", module, operation, load.original, load.returned, out,
        ]  # fmt: skip

    def shell(script: str) -> Callable[[Workload, Path], Command]:
        # $1 original, $2 returned, $3 output, $4 changed files, $5 their names, $6 all names
        return lambda load, out: [
            "sh", "-ec", script, "sh", load.original, load.returned, out, load.files,
            load.files.parent / "names", load.files.parent / "all-names",
        ]  # fmt: skip

    all_of_them: dict[str, Callable[[Workload, Path], Command]] = {
        "python start": lambda _load, _out: [sys.executable, "-c", "pass"],
        "cp": shell('cp "$1" "$3"'),
        "merge": ours("merge"),
        "zipfile": ours("zipfile"),
        "zip -u": shell('cp "$1" "$3"; cd "$4"; zip -q -u "$3" -@ < "$5"'),
        "7z u": shell('cp "$1" "$3"; cd "$4"; 7z u -tzip -bso0 -bsp0 "$3" @"$5"'),
        "zipmerge": shell('cp "$1" "$3"; zipmerge "$3" "$2"'),
        "implode": ours("implode"),
        "zip -U": shell('zip -q -U "$1" --out "$3" -@ < "$6"'),
    }
    return {
        name: command
        for name, command in all_of_them.items()
        if name not in _TOOLS or shutil.which(_TOOLS[name])
    }


def _measure(
    load: Workload,
    contenders: dict[str, Callable[[Workload, Path], Command]],
    rounds: int,
    out: Path,
) -> list[Row]:
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    large = load.original.stat().st_size > 200 << 20
    for turn in range(rounds + 1):
        for name, command in contenders.items():
            if name == QUADRATIC and load.members > 50_000:
                continue
            if large and name in SLOW and turn:
                continue
            out.unlink(missing_ok=True)
            run = _run(command(load, out))
            if turn or (large and name in SLOW):  # the first turn warms the caches
                runs[name].append(run)
        sys.stderr.write(f"{load.name}: turn {turn} of {rounds}\n")
    return [_row(load, name, each, runs["cp"]) for name, each in runs.items() if each]


def _row(load: Workload, name: str, runs: list[Run], cp: list[Run]) -> Row:
    cpu, wall = median(run.cpu for run in runs), median(run.wall for run in runs)
    steps = {
        step: [median(run.steps[step][at] for run in runs) for at in (0, 1)]
        for step in runs[0].steps
    }
    return {
        "workload": load.name,
        "contender": name,
        "members": load.members,
        "changed": load.changed,
        "cpu": cpu,
        "wall": wall,
        "peak_kib": max(run.peak for run in runs),
        "cpu_of_cp": cpu / median(run.cpu for run in cp),
        "wall_of_cp": wall / median(run.wall for run in cp),
        "steps": steps,
        "runs": len(runs),
    }


def _run(command: Command) -> Run:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    start = time.perf_counter()
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}")
    told: Row = json.loads(output) if output.startswith(b"{") else {"steps": {}, "peak_kib": 0}
    return Run(usage.ru_utime + usage.ru_stime, wall, told["peak_kib"], told["steps"])


def _print(load: Workload, rows: list[Row]) -> None:
    print(f"\n{load.name}: {load.changed:,} of {load.members:,} members changed")
    print(f"  {'':13}{'CPU s':>9}{'wall s':>9}{'CPU/cp':>8}{'wall/cp':>8}{'peak MB':>9}")
    for row in rows:
        print(
            f"  {row['contender']:13}{row['cpu']:9.3f}{row['wall']:9.3f}{row['cpu_of_cp']:8.1f}"
            f"{row['wall_of_cp']:8.1f}{_megabytes(row['peak_kib'])}"
        )
        for step, (cpu, wall) in row["steps"].items():
            each = cpu / load.members * 1e6
            print(f"    {step + ' alone':13}{cpu:7.3f}{wall:9.3f}   {each:.1f} µs CPU a member")
    sys.stdout.flush()


def _megabytes(kib: object) -> str:
    return f"{kib / 1024:9.1f}" if isinstance(kib, int) and kib else f"{'':9}"


def _roomy() -> str | None:
    """A folder on a disk; /tmp may be memory."""
    return "/var/tmp" if Path("/var/tmp").is_dir() else None


if __name__ == "__main__":
    main()
