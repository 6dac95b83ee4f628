"""What the documents say is what the code does, as far as a program can tell."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from socketpool.cli.newservice import service
from socketpool.config.models import PoolFile, ServiceFile
from socketpool.config.profiles import ClientFile
from socketpool.core.lifecycle import INSTANCE, LEASE, mermaid
from socketpool.protocol.transfer import TRANSFER
from socketpool.testing import process
from socketpool.tunnel.states import TUNNEL

ROOT = Path(__file__).parents[2]
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
