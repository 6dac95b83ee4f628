"""The roles as an Ansible collection, for those who keep a repository of their own."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.deployments import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BIN = ROOT / ".venv-deploy" / "bin"


def test_the_roles_install_as_a_collection(tmp_path: Path) -> None:
    environment = os.environ | {
        "ANSIBLE_HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }

    (tmp_path / "ansible.cfg").touch()

    def run(*command: str) -> str:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    (archive,) = tmp_path.glob("socketpool-deploy-*.tar.gz")
    assert archive.stat().st_size < 1 << 20
    run("ansible-galaxy", "collection", "install", str(archive), "--offline", "-p", str(tmp_path))
    listed = run("ansible-galaxy", "collection", "list")
    assert "socketpool.deploy" in listed
    for role in ("server", "tunnel", "client", "release"):
        name = f"socketpool.deploy.socketpool_{role}"
        told = run("ansible-doc", "--type", "role", name, "--entry-point", "main")
        assert f"SOCKETPOOL_{role}".upper() in told.upper()
    play = (
        "- hosts: localhost\n  connection: local\n  gather_facts: true\n"
        "  roles: [socketpool.deploy.socketpool_server]\n"
    )
    (tmp_path / "play.yml").write_text(play)
    listed = run("ansible-playbook", "-i", "localhost,", "play.yml", "--list-tasks")
    assert "socketpool_release : Install from its own wheels" in listed
    assert "socketpool_server : Install the unit" in listed
