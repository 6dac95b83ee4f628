"""What a changed inventory does to a pool that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support import hosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.deployments import Deployment

PAGE = "command: ['{python}', -m, http.server, '{port}', --bind, '{host}', --directory, '{folder}']"
POOL = {"pool": {"ports": "21000-21019"}}


@pytest.fixture(scope="module", autouse=True)
def _restored(deployed: Deployment) -> Iterator[None]:
    """Afterwards the pool is as it was."""
    yield
    deployed.configure()


@pytest.fixture
def folder(deployed: Deployment, tmp_path: Path) -> Path:
    """A folder of two services, deployed."""
    folder = tmp_path / "services"
    for name in ("docs", "help"):
        (folder / name).mkdir(parents=True)
        (folder / name / "service.yml").write_text(f"description: pages\n{PAGE}\n")
        (folder / name / "index.html").write_text(f"{name}: first\n")
    deployed.configure(**variables(folder))
    return folder


def test_a_change_in_one_folder_restarts_only_that_services_instances(
    deployed: Deployment, folder: Path
) -> None:
    before = deployed.settled()
    assert set(before) == {"docs", "help", "upload", "vendor", "download", "web"}
    assert page(deployed, before["docs"]) == "docs: first\n"
    server = deployed.main_process()
    (folder / "docs" / "index.html").write_text("docs: second\n")
    (folder / "docs" / "__pycache__").mkdir()
    (folder / "docs" / "__pycache__" / "docs.pyc").write_bytes(b"of no account")
    deployed.configure(**variables(folder))
    after = deployed.settled()
    assert page(deployed, after["docs"]) == "docs: second\n"
    assert set(after["docs"].values()).isdisjoint(before["docs"].values())
    assert after | {"docs": {}} == before | {"docs": {}}
    assert deployed.main_process() == server
    again = deployed.configure(**variables(folder))
    assert "changed=0" in again.stdout


def test_a_mistake_in_a_service_is_refused_before_anything_is_replaced(
    deployed: Deployment, folder: Path
) -> None:
    before = deployed.settled()
    (folder / "help" / "service.yml").write_text("description: pages\ncomand: [x]\n")
    (folder / "docs" / "index.html").write_text("docs: third\n")
    refused = deployed.configure(**variables(folder), check=False)
    assert refused.returncode != 0
    assert "help/service.yml" in refused.stdout
    assert "comand" in refused.stdout
    assert deployed.processes() == before
    placed = hosts.run(deployed.pool, "cat", "/etc/socketpool/services/docs/index.html").stdout
    assert placed == "docs: first\n"


def test_a_changed_pool_file_is_reloaded_and_what_is_removed_goes(
    deployed: Deployment, folder: Path
) -> None:
    before = deployed.settled()
    (folder / "help" / "service.yml").unlink()
    (folder / "help" / "index.html").unlink()
    (folder / "help").rmdir()
    deployed.configure(**variables(folder, web={"warm": 2}))
    after = deployed.settled()
    assert "help" not in after
    assert len(after["web"]) == 2
    assert before["upload"] == after["upload"]
    gone = hosts.run(deployed.pool, "ls", "/etc/socketpool/services").stdout
    assert gone.split() == ["docs"]


def test_other_ports_take_a_restart(deployed: Deployment, folder: Path) -> None:
    server = deployed.main_process()
    pool = variables(folder)["socketpool_server_pool"] | {"pool": {"ports": "21000-21018"}}
    deployed.configure(**variables(folder) | {"socketpool_server_pool": pool})
    assert deployed.main_process() != server
    assert "docs" in deployed.settled()


def variables(folder: Path, **services: Any) -> dict[str, Any]:
    """What the inventory would say."""
    return {
        "socketpool_server_services": str(folder),
        "socketpool_server_pool": POOL | {"services": services},
    }


def page(deployed: Deployment, instances: dict[int, int]) -> str:
    """What the first instance serves."""
    code = (
        "import sys, urllib.request; print(end=urllib.request.urlopen(sys.argv[1]).read().decode())"
    )
    url = f"http://127.0.0.1:{min(instances)}/"
    return hosts.run(deployed.pool, "python3", "-c", code, url).stdout
