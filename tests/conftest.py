"""Fixtures for every kind of test: running pools, and blocks of ports that nobody else uses."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.pools import PROBE, WEB, PoolMaker
from tests.support.skips import pytest_runtest_makereport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool

__all__ = ["new_pool", "pytest_runtest_makereport", "shared_pool"]

# A job in the background is started with SIGINT ignored, one under nohup with SIGHUP ignored, and
# so would be whatever tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No deadline: the machine may be busy.  No database: the tests leave nothing in the checkout.
settings.register_profile("socketpool", deadline=None, database=None)
settings.load_profile("socketpool")


@pytest.fixture
def new_pool() -> Iterator[PoolMaker]:
    """Starts pools for one test; each is stopped, and must leave nothing behind."""
    with PoolMaker() as maker:
        yield maker


@pytest.fixture(scope="session")
def _shared_maker() -> Iterator[PoolMaker]:
    with PoolMaker() as maker:
        yield maker


@pytest.fixture(scope="session")
def shared_pool(_shared_maker: PoolMaker) -> RunningPool:
    """One pool for all tests that leave it as they found it."""
    return _shared_maker.start(
        {"probe": PROBE | {"warm": 4, "max": 6}, "web": WEB | {"warm": 2, "max": 4}}
    )
