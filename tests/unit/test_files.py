"""What processes are told is written whole, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from socketpool.config.settings import Settings, load_settings
from socketpool.config.statedir import StateDir
from socketpool.errors import ConfigError
from socketpool.server.reload import read_again
from socketpool.supervision.files import HASHED_BYTES, fingerprint, spec_texts, write_settings
from socketpool.supervision.logtail import LINE_CHARACTERS, PipeTail, last_lines

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    made = StateDir(tmp_path / "s")
    made.prepare()
    return made


def pool_file(tmp_path: Path, text: str = "catalogue: [services]") -> Path:
    folder = tmp_path / "services" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "service.yml").write_text("description: x\ncommand: [a, '{port}']\n")
    (tmp_path / "pool.yml").write_text(text)
    return tmp_path / "pool.yml"


def started(tmp_path: Path, state: StateDir) -> Settings:
    settings = load_settings(str(pool_file(tmp_path)), ephemeral=None)
    write_settings(state, settings, spec_texts(settings, state))
    return settings


def contents(folder: Path) -> dict[str, str]:
    return {str(p): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_written_is_found_again(tmp_path: Path, state: StateDir) -> None:
    settings = started(tmp_path, state)
    assert Settings.model_validate_json(state.settings.read_bytes()) == settings
    spec = json.loads((state.services / "one.json").read_text())
    assert (spec["name"], spec["argv"]) == ("one", ["a", "{port}"])
    assert not list(state.root.rglob("*.new"))


def test_when_one_file_can_t_be_written_none_has_changed(tmp_path: Path, state: StateDir) -> None:
    settings = started(tmp_path, state)
    before = contents(state.root)
    (state.settings.with_suffix(".new")).mkdir()
    with pytest.raises(ConfigError, match=str(state.root)):
        write_settings(state, settings, {"one": "changed", "two": "new"})
    assert contents(state.root) == before


def test_reading_again_finds_what_has_changed(tmp_path: Path, state: StateDir) -> None:
    settings = started(tmp_path, state)
    same = read_again(settings, state)
    assert (same.added, same.changed, same.removed) == ((), (), ())
    (tmp_path / "services" / "one" / "program").write_text("new code")
    two = tmp_path / "services" / "two"
    two.mkdir()
    (two / "service.yml").write_text("description: y\ncommand: [b]\n")
    new = read_again(same.settings, state)
    assert (new.added, new.changed, new.removed) == (("two",), ("one",), ())
    pool_file(tmp_path, "catalogue: [services]\nservices: {one: {warm: 3, max: 9}}")
    numbers = read_again(new.settings, state)
    assert (numbers.added, numbers.changed, numbers.removed) == ((), (), ())
    assert numbers.settings.services["one"].warm == 3
    (two / "service.yml").unlink()
    assert read_again(numbers.settings, state).removed == ("two",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pool: {ports: 22000-22010}", ["pool.ports", "21000-21499", "restart"]),
        ("pool: {listen: '127.0.0.1:8081'}", ["pool.listen", "8080", "restart"]),
        ("pool: {services_host: 127.0.0.2}", ["pool.services_host", "127.0.0.1", "restart"]),
        ("pool: [", ["pool.yml"]),
    ],
)
def test_what_can_t_be_applied_is_refused_and_nothing_has_changed(
    tmp_path: Path, state: StateDir, text: str, words: list[str]
) -> None:
    settings = started(tmp_path, state)
    before = contents(state.root)
    pool_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_again(settings, state)
    for word in words:
        assert word in f"{caught.value.message} {caught.value.hint}"
    assert contents(state.root) == before


def test_a_fingerprint_differs_when_a_file_does(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    code = tmp_path / "sub" / "code.py"
    code.write_text("a")
    seen = [fingerprint(tmp_path)]
    for change in (
        lambda: code.write_text("b"),
        lambda: code.rename(tmp_path / "sub" / "other.py"),
        lambda: (tmp_path / "more").write_bytes(b"x" * (HASHED_BYTES + 1)),
        lambda: (tmp_path / "more").write_bytes(b"x" * (HASHED_BYTES + 2)),
        lambda: (tmp_path / "more").chmod(0o755),
        (tmp_path / "more").unlink,
    ):
        change()
        assert fingerprint(tmp_path) not in seen[-1:]
        seen.append(fingerprint(tmp_path))


def test_caches_and_hidden_files_are_no_change(tmp_path: Path) -> None:
    before = fingerprint(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("x")
    (tmp_path / ".swp").write_text("x")
    assert fingerprint(tmp_path) == before
    assert fingerprint(tmp_path / "nowhere") == before


def test_the_end_of_a_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == []
    log.write_bytes(b"first\n" + b"x" * 100_000 + b"\n\n\xff end\n" + b"last\n\n")
    lines = last_lines(log, 3)
    assert lines[-2:] == ["\ufffd end", "last"]
    assert max(map(len, lines)) <= LINE_CHARACTERS
    assert "first" not in lines


def test_a_program_can_always_print_and_its_last_words_are_kept() -> None:
    script = "import sys; print('x' * 1_000_000, flush=True); sys.exit('the reason')"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        tail = PipeTail(process.stdout)
        assert process.wait(30) == 1
        *_, end = tail.last_lines()
    assert end == "the reason"
