"""The machine that ``script/vm`` has brought up, for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    with Machine() as made:
        yield made
