"""Phases of ``site.yml`` by themselves, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import hosts
from tests.support.deployments import PLAYBOOKS, changes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.deployments import Deployment

PHASES = ("preflight", "account", "operators", "release", "config", "service", "tunnel")
DROP_IN = "/etc/ssh/sshd_config.d/socketpool-tunnel.conf"
BROKEN = "/etc/ssh/sshd_config.d/another.conf"


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_by_itself_finds_nothing_to_change(deployed: Deployment, phase: str) -> None:
    played = deployed.play(PLAYBOOKS / "site.yml", "--tags", phase)
    assert changes(played.stdout).get("pool") == 0
    assert set(changes(played.stdout).values()) == {0}


def test_check_mode_tells_what_would_change_and_changes_nothing(deployed: Deployment) -> None:
    unit = "/etc/systemd/system/socketpool.service"
    before = deployed.main_process()
    hosts.run(deployed.pool, "sed", "-i", "s/^RestartSec=.*/RestartSec=6/", unit)
    try:
        played = deployed.play(PLAYBOOKS / "site.yml", "--check", "--tags", "service")
        assert "-RestartSec=6" in played.stdout
        assert "+RestartSec=5" in played.stdout
        assert changes(played.stdout)["pool"] >= 1
        assert "RestartSec=6" in hosts.run(deployed.pool, "cat", unit).stdout
        assert deployed.main_process() == before
    finally:
        hosts.run(deployed.pool, "sed", "-i", "s/^RestartSec=.*/RestartSec=5/", unit)


def test_what_is_no_release_is_refused_before_anything_is_done(
    deployed: Deployment, tmp_path: Path
) -> None:
    archive = tmp_path / "something-else.tar"
    archive.touch()
    variable = f"socketpool_release_archive={archive}"
    refused = deployed.play(PLAYBOOKS / "site.yml", "--extra-vars", variable, check=False)
    assert refused.returncode != 0
    assert "A release needs an archive that script/package release made" in refused.stdout
    assert set(changes(refused.stdout).values()) == {0}


def test_a_variable_of_the_wrong_kind_is_refused(deployed: Deployment) -> None:
    refused = deployed.configure(socketpool_server_drain_seconds="soon", check=False)
    assert refused.returncode != 0
    assert "socketpool_server_drain_seconds" in refused.stdout + refused.stderr
    assert set(changes(refused.stdout).values()) == {0}


def test_sshd_gets_nothing_that_it_does_not_take(deployed: Deployment) -> None:
    """Here it is another's file that spoils the whole; sshd would not start again with it."""
    old = hosts.run(deployed.pool, "cat", DROP_IN).stdout
    hosts.run(deployed.pool, "sh", "-c", f"echo Nonsense yes >{BROKEN}; echo '# old' >>{DROP_IN}")
    try:
        refused = deployed.play(PLAYBOOKS / "site.yml", "--tags", "tunnel", check=False)
        assert refused.returncode != 0
        assert "Bad configuration option" in refused.stdout
        assert hosts.run(deployed.pool, "cat", DROP_IN).stdout == old + "# old\n"
    finally:
        hosts.run(deployed.pool, "rm", BROKEN)
    repaired = deployed.play(PLAYBOOKS / "site.yml", "--tags", "tunnel")
    assert changes(repaired.stdout)["pool"] >= 1
    assert hosts.run(deployed.pool, "cat", DROP_IN).stdout == old
