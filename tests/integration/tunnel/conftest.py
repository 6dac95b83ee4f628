"""Fixtures of the tunnel's tests: real sshd processes, and things to reach through them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.pools import PoolMaker, shipped
from tests.support.sshd import FAMILIES, SshdMaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.pools import RunningPool
    from tests.support.sshd import Sshd


@pytest.fixture
def new_sshd() -> Iterator[SshdMaker]:
    """Makes servers for one test; all end with it."""
    with SshdMaker() as maker:
        yield maker


@pytest.fixture(scope="module", params=FAMILIES)
def any_server(request: pytest.FixtureRequest) -> Iterator[Sshd]:
    """A server of each family of ciphers, for tests that move data or wait for answers.

    Signs of life are so rare that only the data itself can wake who waits for it.
    """
    with SshdMaker() as maker:
        yield maker.start_family(request.param, client_options="ServerAliveInterval 300")


@pytest.fixture(scope="session")
def trio() -> Iterator[RunningPool]:
    """A pool of the three services that ship, left by each test as it was found."""
    with PoolMaker() as maker:
        services = {name: shipped(name) for name in ("upload", "vendor", "download")}
        yield maker.start({n: service | {"warm": 2, "max": 6} for n, service in services.items()})
