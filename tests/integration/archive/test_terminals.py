"""Names beyond what the terminal's encoding knows are shown escaped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.archives import Spec, build
from tests.support.pools import run_tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "utf-8"])
def test_a_plan_is_shown_on_every_terminal(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(build([Spec("秘密/страница.html".encode(), b"x", flags=0x800)]).data)
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    for more in ((), ("--json",)):
        result = run_tool("socketpool", "plan", path, *more, env=env, encoding=encoding)
        assert result.returncode == 0, result.stderr
        assert ".html" in result.stdout
