"""``script/bench [NAME ...] [--quick]``."""

from __future__ import annotations

import argparse

from benchmarks import coldstart, growth, lease, peers, recovery, roundtrip, sdk, tunnel
from benchmarks.archive.__main__ import main as measure_archive
from benchmarks.report import keep, show

BENCHMARKS = {
    "pool": {
        "Lease and release of three services": lease.measure,
        "A connection to a warm instance against a cold start for each": coldstart.measure,
        "From kill -9 until it answers again": recovery.measure,
        "Growing while leases are granted": growth.measure,
    },
    "roundtrip": {"Round trip of webflow-site.zip": roundtrip.measure},
    "sdk": {
        "A large file through a session": sdk.transfer,
        "Sessions on one instance": sdk.sessions,
        "Memory of warm instances": sdk.memory,
        "Round trips against scp and rsync through sshd": peers.measure,
    },
    "tunnel": {
        "Through SSH, on loopback": tunnel.near,
        "Through SSH, with 50 ms for a round trip": tunnel.far,
    },
}
ARCHIVE = "archive"  # has a table and a file of its own form


def main() -> None:
    """Measure what was asked for, all by default."""
    names = [*BENCHMARKS, ARCHIVE]
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args()
    for name in arguments.names or names:
        if name not in names:
            parser.error(f"no benchmark is named {name}; there are: {', '.join(names)}")
        if name == ARCHIVE:
            measure_archive(["--quick"] if arguments.quick else [])
            continue
        found = {}
        for title, measure in BENCHMARKS[name].items():
            if rows := measure(quick=arguments.quick):
                show(title, rows)
                found[title] = rows
        print(f"kept in {keep(name, found)}\n")


if __name__ == "__main__":
    main()
