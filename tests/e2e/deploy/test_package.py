"""The Debian package, for those without Ansible."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import hosts
from tests.support.deployments import ROOT, SETTLE_SECONDS
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


# The package as a later release would be, from the one that is there.
UPGRADE = """
cd /tmp
dpkg-deb -R socketpool.deb later
mv later/opt/socketpool/releases/{old} later/opt/socketpool/releases/{new}
sed -i 's/{old}/{new}/g; s/^Version:.*/Version: 99.1/' later/DEBIAN/*
dpkg-deb --root-owner-group -Znone --build later later.deb
apt-get install --yes ./later.deb
rm -r later later.deb
"""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A bare host, with the package's file on it."""
    started = hosts.Host("socketpool-package")
    try:
        (package,) = (ROOT / "dist").glob("socketpool_*.deb")
        copy = ["docker", "cp", str(package), f"{started.name}:/tmp/socketpool.deb"]
        subprocess.run(copy, check=True)
        yield started.name
    finally:
        started.remove()


def test_the_package_is_installed_started_upgraded_and_removed_without_a_trace(host: str) -> None:
    def files() -> str:
        prune = ("(", "-path", "/proc", "-o", "-path", "/sys", ")", "-prune")
        search = ("find", "/", "-xdev", *prune, "-o", "-iname", "*socketpool*", "-print")
        return hosts.run(host, *search).stdout.replace("/tmp/socketpool.deb\n", "")

    before = files()
    hosts.run(host, "apt-get", "update")
    hosts.run(host, "apt-get", "install", "--yes", "/tmp/socketpool.deb")
    assert hosts.run(host, "systemctl", "is-active", "socketpool").stdout == "active\n"

    def states() -> set[str]:
        answer = json.loads(hosts.run(host, "socketpoolctl", "status", "--json").stdout)
        return {instance["state"] for instance in answer}

    eventually(lambda: states() == {"idle"}, "all instances idle", SETTLE_SECONDS)
    assert "pool-server" in hosts.run(host, "supervisorctl", "status").stdout
    site = (ROOT / "tests" / "data" / "webflow-site.zip").read_bytes()
    into = ["docker", "exec", "-i", host, "sh", "-c", "cat > /root/site.zip"]
    subprocess.run(into, input=site, check=True)
    job = ("socketpool_client", "127.0.0.1", "8080", "/root/site.zip")
    token = ("--token-file", "/var/lib/socketpool/token")
    done = hosts.run(host, *job, "upload", "vendor", "download", *token).stdout
    assert re.search(r"changed: [1-9]\d* members", done)

    # An upgrade keeps what the operator wrote, and nothing of the old release.
    (old,) = hosts.run(host, "ls", "/opt/socketpool/releases").stdout.split()
    hosts.run(host, "sh", "-c", "echo '# the operator' >>/etc/socketpool/pool.yml")
    hosts.run(host, "sh", "-euc", UPGRADE.format(old=old, new=f"99.1-{'0' * 12}"))
    (new,) = hosts.run(host, "ls", "/opt/socketpool/releases").stdout.split()
    assert new == f"99.1-{'0' * 12}"
    assert "# the operator" in hosts.run(host, "cat", "/etc/socketpool/pool.yml").stdout
    eventually(lambda: states() == {"idle"}, "all instances idle after the upgrade", SETTLE_SECONDS)
    running = hosts.run(host, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert f"/releases/{new}/" in running
    assert old not in running

    hosts.run(host, "apt-get", "remove", "--yes", "socketpool")
    assert hosts.run(host, "pgrep", "-u", "socketpool", check=False).stdout == ""
    kept = files()
    assert "/etc/socketpool" in kept
    assert "/var/lib/socketpool" in kept
    assert "/usr/local" not in kept
    hosts.run(host, "apt-get", "purge", "--yes", "socketpool")
    assert files() == before
    assert "socketpool" not in hosts.run(host, "cat", "/etc/passwd", "/etc/group").stdout
