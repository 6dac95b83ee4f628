"""``socketpool check`` and what ``drain`` refuses to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from socketpool.cli.operations import check, drain
from socketpool.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_sound_file_is_told_and_nothing_is_started(tmp_path: Path) -> None:
    path = tmp_path / "pool.yml"
    path.write_text("services: {web: {warm: 2, max: 3}}")
    result = CliRunner().invoke(check, [str(path)])
    assert result.exit_code == 0
    assert "web              2 warm, 3 at most\n" in result.output
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_mistake_is_told(tmp_path: Path) -> None:
    path = tmp_path / "pool.yml"
    path.write_text("services: {web: {warm: -2}}")
    with pytest.raises(ConfigError, match=r"services\.web\.warm") as caught:
        CliRunner().invoke(check, [str(path)], catch_exceptions=False)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("arguments", [[], ["web", "--all"], ["web", "--undo", "--wait", "3"]])
def test_what_makes_no_sense_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("x" * 43)
    monkeypatch.setenv("SOCKETPOOL_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(UsageError):
        CliRunner().invoke(drain, [*arguments, "--pool", "127.0.0.1:1"], catch_exceptions=False)
