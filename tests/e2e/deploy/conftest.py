"""One deployed pool and client for all tests that leave them as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from deployments import PLAYBOOKS, Deployment, modes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, dict[str, str]]]:
    """A deployment, and the modes of the pool's files before it."""
    deployment = Deployment("tests", tmp_path_factory.mktemp("deployment"))
    deployment.destroy()
    try:
        deployment.create()
        before = modes(deployment.pool)
        deployment.play(PLAYBOOKS / "site.yml", "-vv")
        yield deployment, before
    finally:
        deployment.destroy()


@pytest.fixture(scope="session")
def deployed(fresh: tuple[Deployment, dict[str, str]]) -> Deployment:
    """The deployment."""
    return fresh[0]
