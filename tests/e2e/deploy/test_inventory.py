"""The example inventory, used as docs/deployment.md says; Vagrant's is used by its machines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.deployments import ROOT
from tests.support.pools import run_tool

if TYPE_CHECKING:
    from pathlib import Path

BIN = ROOT / ".venv-deploy" / "bin"
ROLES = {
    "socketpool_servers": ("socketpool_release", "socketpool_server", "socketpool_tunnel"),
    "socketpool_clients": ("socketpool_release", "socketpool_client"),
}
# What the roles are told is checked by the same code that checks it on hosts.
LOOK = """
- hosts: all
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - ansible.builtin.validate_argument_spec:
        argument_spec: "{{ options[group_names[0]] }}"
    - ansible.builtin.copy:
        content: "{{ socketpool_server_pool | to_nice_yaml }}"
        dest: "{{ out }}/{{ inventory_hostname }}.yml"
      when: "'socketpool_servers' in group_names"
    - ansible.builtin.copy:
        content: "{{ socketpool_client_users | to_nice_yaml }}"
        dest: "{{ out }}/{{ inventory_hostname }}.users"
      when: "'socketpool_clients' in group_names"
"""


def ansible(command: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "ANSIBLE_HOME": str(cwd / "ansible"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    return subprocess.run(
        [str(BIN / command), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
        timeout=300,
    )


def specified(roles: tuple[str, ...]) -> dict[str, Any]:
    """The options of all roles; defaults, which name other variables, are left to the roles."""
    options: dict[str, Any] = {}
    for role in roles:
        text = (ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
        options |= yaml.safe_load(text)["argument_specs"]["main"]["options"]
    return {
        name: {key: value for key, value in option.items() if key != "default"}
        for name, option in options.items()
    }


def test_the_example_tells_the_roles_what_they_take(tmp_path: Path) -> None:
    inventory = tmp_path / "my-inventory"
    shutil.copytree(ROOT / "inventory" / "production", inventory)
    password = tmp_path / "password"
    password.write_text("opens it\n")
    token = "a token that was made for this test"
    (example,) = inventory.rglob("vault.yml.example")
    vault = example.with_suffix("")
    vault.write_text(example.read_text().replace("the token", token))
    done = ansible(
        "ansible-vault", "encrypt", "--vault-password-file", password, vault, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert token not in vault.read_text()
    play = tmp_path / "look.yml"
    play.write_text(LOOK)
    options = {group: specified(roles) for group, roles in ROLES.items()}
    variables = json.dumps({"options": options, "out": str(tmp_path)})
    done = ansible(
        *("ansible-playbook", "--inventory", inventory, "--vault-password-file", password),
        *("--extra-vars", variables, play),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pools = list(tmp_path.glob("*.yml"))
    pools.remove(play)
    assert pools
    for pool in pools:
        checked = run_tool("socketpool", "check", str(pool))
        assert checked.returncode == 0, checked.stdout + checked.stderr
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert all(f"sha256:{digest}" in pool.read_text() for pool in pools)
    assert all(token not in pool.read_text() for pool in pools)
    (users,) = tmp_path.glob("*.users")
    assert yaml.safe_load(users.read_text())[0]["tokens"] == {"processing": token}
