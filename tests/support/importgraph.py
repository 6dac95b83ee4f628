"""The package's modules and what each imports, read from their source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import socketpool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGE = "socketpool"
_ROOT = Path(socketpool.__file__).parent
_NOT_MODULES = {"catalogue", "templates"}


class Graph(NamedTuple):
    """For each module the modules of ours, and the top-level packages of others, that it imports.

    Imports in functions count.  Importing a module imports the packages around it.
    """

    of_ours: dict[str, set[str]]
    of_others: dict[str, set[str]]


def read_graph(*, for_types: bool = False) -> Graph:
    """The graph of the package as it lies here; with ``for_types`` what type checkers see of it."""
    files = {_name(path): path for path in sorted(_ROOT.rglob("*.py")) if _is_module(path)}
    graph = Graph({}, {})
    for name, path in files.items():
        ours: set[str] = set()
        others: set[str] = set()
        for imported in _imports(ast.parse(path.read_text(encoding="utf-8")), for_types):
            if imported.partition(".")[0] != PACKAGE:
                others.add(imported.partition(".")[0])
            else:
                ours |= {each for each in _with_packages(imported) if each in files}
        graph.of_ours[name] = ours - {name} - set(_with_packages(name)[1:])
        graph.of_others[name] = others
        graph.of_ours[name] |= {each for each in _with_packages(name)[1:] if each in files}
    return graph


def reached(graph: Graph, modules: Iterable[str]) -> set[str]:
    """The modules and all that they import, over however many steps."""
    found: set[str] = set()
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module not in found:
            found.add(module)
            pending += graph.of_ours[module]
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules each of which imports all others, over however many steps.

    That a module lies in a package that imports it is no circle: the package is imported first.
    """
    below = {
        module: {each for each in ours if not module.startswith(f"{each}.")}
        for module, ours in graph.of_ours.items()
    }
    trimmed = Graph(below, graph.of_others)
    reaching = {module: reached(trimmed, below[module]) for module in below}
    groups = {
        tuple(sorted(other for other in seen if module in reaching[other]))
        for module, seen in reaching.items()
        if module in seen
    }
    return sorted(list(group) for group in groups)


def _is_module(path: Path) -> bool:
    return not _NOT_MODULES & set(path.relative_to(_ROOT).parts)


def _name(path: Path) -> str:
    parts = (PACKAGE, *path.relative_to(_ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def _with_packages(name: str) -> list[str]:
    """The name itself, and those of the packages around it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _imports(node: ast.AST, for_types: bool) -> Iterator[str]:
    """Whatever a module may import: of ``from a import b`` both a and a.b."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) if not for_types:
                for other in child.orelse:
                    yield from _imports(other, for_types)
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{each.name}" for each in names)
            case _:
                yield from _imports(child, for_types)
