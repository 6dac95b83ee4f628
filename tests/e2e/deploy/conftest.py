"""One deployed pool and client for all tests that leave them as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.deployments import PLAYBOOKS, Deployment, modes

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def fresh(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Deployment, dict[str, dict[str, str]]]]:
    """A deployment by the oldest Ansible that may do it, and the files' modes before it."""
    deployment = Deployment("tests", tmp_path_factory.mktemp("deployment"))
    deployment.destroy()
    try:
        deployment.create()
        before = {host: modes(host) for host in (deployment.pool, deployment.client)}
        deployment.play(PLAYBOOKS / "site.yml", "-vv", core=".venv-deploy-oldest")
        yield deployment, before
    finally:
        deployment.destroy()


@pytest.fixture(scope="session")
def deployed(fresh: tuple[Deployment, dict[str, dict[str, str]]]) -> Deployment:
    """The deployment."""
    return fresh[0]
