"""``script/bench [lease|roundtrip ...] [--quick]``."""

from __future__ import annotations

import argparse

from benchmarks import lease, roundtrip
from benchmarks.report import keep, show

BENCHMARKS = {
    "lease": ("Lease and release of three services", lease.measure),
    "roundtrip": ("Round trip of webflow-site.zip", roundtrip.measure),
}


def main() -> None:
    """Measure what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark is named {name}; there are: {', '.join(BENCHMARKS)}")
        title, measure = BENCHMARKS[name]
        rows = measure(quick=arguments.quick)
        show(title, rows)
        print(f"kept in {keep(name, rows)}\n")


if __name__ == "__main__":
    main()
