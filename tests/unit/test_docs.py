"""What the documents say is what the code does, as far as a program can tell."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from socketpool import variables
from socketpool.cli.newservice import service
from socketpool.config.models import PoolFile, Readiness, ServiceFile, ServiceLimits
from socketpool.config.profiles import ClientFile
from socketpool.config.values import parse_duration, parse_size
from socketpool.core.lifecycle import INSTANCE, LEASE, mermaid
from socketpool.errors import (
    INTERRUPTED_EXIT_CODE,
    ArchiveError,
    ConfigError,
    NoCapacity,
    NotAuthorised,
    PoolUnreachable,
    ServiceFailed,
    SocketpoolError,
    TimedOut,
    UsageError,
)
from socketpool.protocol.transfer import TRANSFER
from socketpool.testing import process
from socketpool.tunnel.states import TUNNEL

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "socketpool" / "howto"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])


def test_the_diagrams_are_those_of_the_tables() -> None:
    lifecycles = (ROOT / "docs" / "lifecycles.md").read_text()
    assert mermaid(INSTANCE) in lifecycles
    assert mermaid(LEASE) in lifecycles
    assert mermaid(TUNNEL) in lifecycles
    assert mermaid(TRANSFER) in (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_examples_of_service_files_are_valid() -> None:
    text = (ROOT / "docs" / "services.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    services = [block for block in blocks if "description" in block]
    assert len(services) >= 3
    for block in blocks:
        (ServiceFile if "description" in block else PoolFile).model_validate(block)


def test_the_example_of_a_vendor_that_talks_with_its_client_works(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "services.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(next(c for c in code if "class Translate" in c), namespace)
    glossary = tmp_path / "glossary.txt"
    glossary.write_text("words")
    client = namespace["TranslateClient"]("de", glossary)
    done = process(namespace["Translate"], {"a.txt": b"text"}, client=client)
    assert done.changed == {"a.txt": b"de: text"}
    assert (tmp_path / "glossary.used").read_text() == "words"
    client = namespace["TranslateClient"](None, glossary)
    assert process(namespace["Translate"], {"a.txt": b"x"}, client=client).changed == {
        "a.txt": b"en: x"
    }


def test_the_examples_of_a_vendor_and_its_test_work(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "services.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    folder = tmp_path / "shout"
    folder.mkdir()
    (folder / "shout.py").write_text(next(c for c in code if "class Shout" in c))
    found = re.search(r"```yaml\n# services/shout/service.yml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (folder / "service.yml").write_text(found[1])
    namespace: dict[str, Any] = {"__file__": str(folder / "test_shout.py")}
    exec(next(c for c in code if "process(SERVICE" in c), namespace)
    namespace["test_text_becomes_capitals"]()


def test_what_making_a_service_prints_is_what_the_document_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "services.md").read_text()
    found = re.search(r"    \$ socketpool service new shout\n((?:    .*\n)+)", text)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(service, ["new", "shout"])
    assert result.exit_code == 0
    assert textwrap.indent(result.output, "    ") == found[1]


def test_the_example_of_profiles_is_valid() -> None:
    text = (ROOT / "docs" / "tunnel.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert set(ClientFile.model_validate(yaml.safe_load(block)).profiles) == {"acme"}


def test_the_example_configuration_shows_the_defaults() -> None:
    shown = PoolFile.model_validate(yaml.safe_load((ROOT / "examples" / "pool.yml").read_text()))
    assert shown.pool == PoolFile().pool


EXIT_CODES = {
    SocketpoolError: "unexpected",
    UsageError: "usage",
    ConfigError: "configuration",
    PoolUnreachable: "can't be reached",
    NoCapacity: "no capacity",
    NotAuthorised: "not authorised",
    ArchiveError: "the archive was refused",
    ServiceFailed: "service failed",
    TimedOut: "timed out",
}
"""What the HOWTOs call each family of errors."""


def test_the_howto_of_the_main_job_lists_every_exit_code() -> None:
    text = (HOWTO / "socketpool_client.md").read_text()
    _, _, table = text.partition("Exit codes:\n")
    rows = dict(re.findall(r"^    ([0-9]+) +(.+(?:\n         .+)*)", table, re.MULTILINE))
    codes = {str(cls.exit_code) for cls in EXIT_CODES}
    assert set(rows) == {"0", *codes, str(INTERRUPTED_EXIT_CODE)}
    for cls, words in EXIT_CODES.items():
        assert words in rows[str(cls.exit_code)]


SHORT = {"nobody there": PoolUnreachable, "usage or configuration": ConfigError}
SHORT |= {"not ready in time": TimedOut, "the pool ended by itself": SocketpoolError}
SHORT["the service failed"] = ServiceFailed
SHORT |= {words: cls for cls, words in EXIT_CODES.items()}


@pytest.mark.parametrize(
    "name", ["socketpool_server", "uploader_client", "vendor_client", "downloader_client"]
)
def test_exit_codes_in_a_howto_are_those_of_the_errors(name: str) -> None:
    text = " ".join((HOWTO / f"{name}.md").read_text().split())
    (sentence,) = re.findall(r"Exit codes[^:.]*: 0 ([^.]+)\.", text)
    told = re.findall(r"([0-9]+) ([^,(]+[^,( ])", sentence)
    assert told
    for code, words in told:
        if words == "interrupted":
            assert int(code) == INTERRUPTED_EXIT_CODE
        else:
            assert SHORT[words].exit_code == int(code), words


def test_the_table_of_service_yml_shows_the_defaults() -> None:
    text = (ROOT / "docs" / "services.md").read_text()
    rows = re.findall(r"^\| `([a-z_.]+)` \| .* \| (\S+) \|$", text, re.MULTILINE)
    shown = {name: value for name, value in rows if value[0].isdigit()}
    limits, readiness = ServiceLimits(), Readiness()
    assert shown.keys() == {
        *("warm", "max", "start", "interval", "timeout"),
        *("limits.sessions", "limits.session_time", "limits.archive_size"),
    }
    assert int(shown["limits.sessions"]) == limits.sessions
    assert parse_duration(shown["limits.session_time"]) == limits.session_time
    assert parse_size(shown["limits.archive_size"]) == limits.archive_size
    for name in ("start", "interval", "timeout"):
        assert parse_duration(shown[name]) == getattr(readiness, name)
    fields = ServiceFile.model_fields
    assert (int(shown["warm"]), int(shown["max"])) == (
        fields["warm"].default,
        fields["max"].default,
    )


DEPLOYMENT_VARIABLES = {"SOCKETPOOL_DRAIN_SECONDS", "SOCKETPOOL_VMS", "SOCKETPOOL_VM_ACCEL"}


def test_every_variable_that_the_documents_name_exists() -> None:
    known = {value for name, value in vars(variables).items() if name.isupper()}
    known |= DEPLOYMENT_VARIABLES
    for page in [*PAGES, *HOWTO.glob("*.md")]:
        named = set(re.findall(r"SOCKETPOOL_[A-Z_]*[A-Z]", page.read_text()))
        assert named <= known, page.name


def test_the_name_of_a_variable_stands_in_one_module_alone() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "socketpool").rglob("*.py")
        if re.search(r'["\']SOCKETPOOL_[A-Z_]+["\']', path.read_text())
    }
    assert found == {"socketpool/variables.py"}


def test_the_map_of_the_code_lists_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `([a-z/]+)` \|", text, re.MULTILINE)
    package = ROOT / "socketpool"
    rooms = {str(init.parent.relative_to(package)) for init in package.glob("*/**/__init__.py")}
    rooms = {room for room in rooms if not room.startswith("catalogue")} | {"howto"}
    assert sorted(listed) == sorted(rooms)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_that_a_guide_names_exist(name: str) -> None:
    named = re.findall(
        r"`((?:socketpool|tests|script|services|docs)/[\w./]+)`", (ROOT / name).read_text()
    )
    assert named
    for path in named:
        assert (ROOT / path).exists() or "NAME" in path, path
