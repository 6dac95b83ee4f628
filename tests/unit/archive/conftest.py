from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.archive.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)
