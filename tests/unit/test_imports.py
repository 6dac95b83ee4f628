"""What may import what: the package's modules as a graph, and commands in bare interpreters."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from click import Context

from socketpool.cli.main import VERBS, command
from tests.support.importgraph import PACKAGE, Graph, circles, reached, read_graph

if TYPE_CHECKING:
    from pathlib import Path

SERVER_LIBRARIES = {"fastapi", "fastapi_offline", "psutil", "starlette", "supervisor"}
SERVER_LIBRARIES |= {"httptools", "uvicorn", "uvloop"}
SERVER_ROOMS = tuple(f"{PACKAGE}.{room}" for room in ("server", "supervision", "store", "doctor"))
WITHOUT_SERVER = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {sorted(SERVER_LIBRARIES)} or name.startswith({SERVER_ROOMS}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph()


def test_the_graph_knows_imports_of_every_kind(graph: Graph) -> None:
    assert f"{PACKAGE}.errors" in graph.of_ours[f"{PACKAGE}.client.dial"]
    assert f"{PACKAGE}.server.leases" in graph.of_ours[f"{PACKAGE}.server.leases.leasemanager"]
    assert "uvloop" in graph.of_others[f"{PACKAGE}.server.__main__"]
    assert f"{PACKAGE}.client.roundtrip" in graph.of_ours[f"{PACKAGE}.cli.client"], "in a function"


@pytest.mark.parametrize("room", ["client", "protocol", "archive", "credentials", "tunnel"])
def test_a_client_imports_nothing_of_the_server(graph: Graph, room: str) -> None:
    modules = [name for name in graph.of_ours if name.startswith(f"{PACKAGE}.{room}.")]
    assert modules
    for module in reached(graph, modules):
        assert not module.startswith(SERVER_ROOMS), module
        assert not graph.of_others[module] & SERVER_LIBRARIES, module


def test_the_protocol_imports_no_engine_and_no_server(graph: Graph) -> None:
    modules = [name for name in graph.of_ours if name.startswith(f"{PACKAGE}.protocol.")]
    others = tuple(f"{PACKAGE}.{room}." for room in ("archive", "client", "rsi", "server"))
    found = {name for name in reached(graph, modules) if name.startswith(others)}
    assert found <= {f"{PACKAGE}.archive.refusals"}  # no engine: the errors that it can raise


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Those for type checkers count: a circle of types is one of meanings."""
    assert circles(read_graph(for_types=True)) == []


def test_a_circle_is_found() -> None:
    ours = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(Graph(ours, {name: set() for name in ours})) == [["a", "b", "c"]]


def bare(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVER + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plan_needs_nothing_of_the_server(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.writestr("index.html", "<p>")
    code = "from socketpool.cli.main import main; main()"
    done = bare(code, "plan", str(tmp_path / "site.zip"))
    assert done.returncode == 0, done.stderr
    assert "index.html" in done.stdout
    assert bare(code, "--help").returncode == 0


def test_the_clients_commands_need_nothing_of_the_server() -> None:
    assert bare("from socketpool.cli.client import main; main()", "-help").returncode == 0
    assert bare("import socketpool.client.roundtrip").stderr == ""
    assert bare("import socketpool.cli.stepclient").stderr == ""
    assert "ModuleNotFoundError" in bare("import socketpool.server.__main__").stderr


def test_help_imports_no_verb_and_no_library_that_takes_its_time() -> None:
    heavy = (
        "{'pydantic', 'yaml', 'rich', 'pathspec', 'ssl', 'http.client', 'socketpool.cli.server'}"
    )
    code = f"import socketpool.cli.main; print({heavy} & set(sys.modules))"
    assert bare(code).stdout == "set()\n"
    code = f"import socketpool.cli.client; print({heavy} & set(sys.modules))"
    assert bare(code).stdout == "set()\n"
    code = f"import socketpool.cli.stepclient; print({heavy} & set(sys.modules))"
    assert bare(code).stdout == "set()\n"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_verb_is_summed_up_by_its_own_words(name: str) -> None:
    verb = command.get_command(Context(command), name)
    assert verb is not None
    assert verb.name == name
    assert VERBS[name].summary.removesuffix(".") == verb.get_short_help_str(1000).removesuffix(".")
