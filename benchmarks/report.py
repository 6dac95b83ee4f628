"""A table for people and JSON for comparison over time."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

import socketpool

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of the same keys as a table."""
    table = Table(*rows[0], title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*(f"{v:,.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def keep(name: str, tables: dict[str, list[dict[str, Any]]]) -> Path:
    """Write tables by their titles and what they were measured on as JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    about = {
        "socketpool": socketpool.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
    }
    path.write_text(
        json.dumps({"about": about, "tables": tables}, indent=2) + "\n", encoding="utf-8"
    )
    return path
