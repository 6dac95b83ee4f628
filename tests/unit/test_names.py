"""No two modules and no two classes of the package share a name, so that a search finds the one."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import socketpool

PACKAGE = Path(socketpool.__file__).parent
SHARED_MODULE_NAMES = {
    "__init__": "Python's name for a package's own module",
    "__main__": "Python's name for what `python -m` runs",
}


def shared(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: where for name, where in places.items() if len(where) > 1}


def test_no_two_modules_share_a_name() -> None:
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        places[path.stem].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 100
    assert shared(places).keys() == SHARED_MODULE_NAMES.keys(), shared(places)


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert len(places) > 100
    assert not shared(places)
