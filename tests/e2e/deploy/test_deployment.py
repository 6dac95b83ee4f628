"""What is on hosts after ``site.yml``, and who may do what there."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.support import hosts
from tests.support.deployments import PLAYBOOKS, ROOT, SETTLE_SECONDS, changes, modes
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.deployments import Deployment

ARCHIVES = ("webflow-site", "angular-src")

# What may be new on hosts below the system's folders, with mode and owner.
ANYWHERE = {
    r"/var/lib/(apt|dpkg|systemd|sudo|private)(/.*)?": ".*",
    r"/var/log(/.*)?": ".*",
    r"/root/.ansible(/.*)?": ".*",
    r"/home/deploy/.ansible(/.*)?": ".* deploy:deploy",
}
POOL = ANYWHERE | {
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?": r"-rw-r[-w]-(r--|---) root:\w+",
    r"/etc/socketpool": "drwxr-x--- root:socketpool",
    r"/etc/socketpool/pool.yml": "-rw-r----- root:socketpool",
    r"/etc/socketpool/services(/\w+)?": "drwxr-x--- root:socketpool",
    r"/etc/socketpool/services/.*": "-rw-r----- root:socketpool",
    r"/etc/ssh/sshd_config.d/socketpool-tunnel.conf": "-rw-r--r-- root:root",
    r"/etc/sudoers.d/socketpool": "-r--r----- root:root",
    r"/etc/systemd/system/socketpool.service": "-rw-r--r-- root:root",
    r"/etc/systemd/system/multi-user.target.wants/socketpool.service": "lrwxrwxrwx root:root",
    r"/usr/local/bin/socketpoolctl": "-rwxr-xr-x root:root",
    r"/usr/local/bin/(socketpool-)?supervisorctl": "lrwxrwxrwx root:root",
    r"/var/lib/socketpool": "drwx------ socketpool:socketpool",
    r"/var/lib/socketpool/.*": r"(d|-|s)[r-][w-][x-]------ socketpool:socketpool",
    r"/var/lib/socketpool-tunnel(/.ssh)?": "drwxr-x--- root:socketpool-tunnel",
    r"/var/lib/socketpool-tunnel/.ssh/authorized_keys": "-rw-r----- root:socketpool-tunnel",
}
CLIENT = ANYWHERE | {
    r"/etc/ssh/ssh_known_hosts": "-rw-r--r-- root:root",
    r"/home/acme/.config(/socketpool)?": "drwx------ acme:acme",
    r"/home/acme/.config/socketpool/[^/]+": "-rw------- acme:acme",
    r"/home/acme/(webflow-site|angular-src).zip(.receipt.json)?": "-rw------- acme:acme",
    r"/usr/local/(bin|share/(man/man1|bash-completion/completions|zsh/site-functions))/[^/]+": (
        "lrwxrwxrwx root:root"
    ),
    r"/usr/local/share/(man|bash-completion|zsh)(/[a-z1-]+)?": "drwxr-xr-x root:root",
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_a_client_does_the_main_job_through_the_restricted_account(
    deployed: Deployment, archive: str
) -> None:
    data = (ROOT / "tests" / "data" / f"{archive}.zip").read_bytes()
    put(deployed.client, f"/home/acme/{archive}.zip", data)
    done = hosts.run(
        *(deployed.client, "socketpool_client", "@pool", f"{archive}.zip"),
        *("upload", "vendor", "download"),
        user="acme",
        cwd="/home/acme",
    )
    sent, kept = map(int, re.findall(r"(\d+) sent, (\d+) kept back", done.stdout)[0])
    assert sent > 0
    assert kept > 0
    changed, same = re.findall(r"changed: (\d+) members; the other (\d+) are", done.stdout)[0]
    assert int(changed) > 0
    assert int(changed) + int(same) == sent + kept


def test_a_profile_with_a_policy_lets_out_what_that_says(deployed: Deployment) -> None:
    archive = ROOT / "tests" / "data" / "webflow-site.zip"
    put(deployed.client, "/home/acme/webflow-site.zip", archive.read_bytes())
    with zipfile.ZipFile(archive) as site:
        pages = [name for name in site.namelist() if name.endswith(".html")]
    done = hosts.run(
        *(deployed.client, "socketpool_client", "@pages", "webflow-site.zip"),
        *("upload", "vendor", "download"),
        user="acme",
        cwd="/home/acme",
    )
    assert f"{len(pages)} sent" in done.stdout


def test_the_account_can_do_nothing_else(deployed: Deployment) -> None:
    def ssh(*words: str) -> tuple[int, str]:
        command = ("ssh", "-o", "BatchMode=yes", *words)
        result = hosts.run(deployed.client, "timeout", "20", *command, user="acme", check=False)
        return result.returncode, result.stdout + result.stderr

    target = "socketpool-tunnel@pool"
    for words in ([target, "id"], ["-tt", target], ["-s", target, "sftp"]):
        code, said = ssh(*words)
        assert code not in {0, 124}, said
        assert "uid=" not in said
    # Ports of the pool are reached, others are not, nor other hosts; nothing listens there for us.
    assert "HTTP/1" in through(deployed, "127.0.0.1:8080")
    for place in ("127.0.0.1:22", "client:22", "127.0.0.1:21020"):
        assert "administratively prohibited" in through(deployed, place), place
    code, said = ssh("-N", "-o", "ExitOnForwardFailure=yes", "-R", "21500:127.0.0.1:22", target)
    assert code == 255, said
    assert "remote port forwarding failed" in said
    # A password is not even asked for.
    code, said = ssh("-o", "PubkeyAuthentication=no", target)
    assert "Permission denied (publickey)" in said


def test_an_operator_uses_supervisorctl_and_becomes_nothing_else(deployed: Deployment) -> None:
    status = hosts.run(deployed.pool, "supervisorctl", "status", user="olga").stdout
    names = [line.split()[0] for line in status.splitlines()]
    assert "pool-server" in names
    upload = next(name for name in names if name.startswith("upload:"))
    before = deployed.settled()["upload"]
    said = hosts.run(deployed.pool, "supervisorctl", "restart", upload, user="olga").stdout
    assert f"{upload}: started" in said
    assert deployed.settled()["upload"] != before
    for attempt in (
        "supervisorctl -c /home/olga/evil.conf status",
        "socketpoolctl run web -- id",
        "socketpoolctl serve",
        "sudo -n -u socketpool id",
        "sudo -n id",
    ):
        result = hosts.run(deployed.pool, *shlex.split(attempt), user="olga", check=False)
        assert "uid=" not in result.stdout, attempt
        assert result.returncode != 0 or "Unknown syntax" in result.stdout, attempt
    stranger = hosts.run(deployed.pool, "supervisorctl", "status", user="acme", check=False)
    assert stranger.returncode != 0
    assert "RUNNING" not in stranger.stdout


@pytest.mark.parametrize("host", ["pool", "client"])
def test_modes_and_owners_are_as_before_or_as_specified(
    fresh: tuple[Deployment, dict[str, dict[str, str]]], host: str
) -> None:
    deployment, all_before = fresh
    container, allowed = {"pool": (deployment.pool, POOL), "client": (deployment.client, CLIENT)}[
        host
    ]
    before, after = all_before[container], modes(container)
    lines = {path: mode for path, mode in after.items() if before.get(path) != mode}
    assert any(path.endswith(("/pool.yml", "/client.yml")) for path in lines)
    for path, mode in lines.items():
        expected = [want for name, want in allowed.items() if re.fullmatch(name, path)]
        assert expected, f"{path} is new or changed: {before.get(path)} -> {mode}"
        assert any(re.fullmatch(want, mode) for want in expected), f"{path}: {mode}"
    assert set(before) - set(after) <= {p for p in before if p.startswith(("/var/lib", "/root"))}


def test_nothing_of_a_release_can_be_changed_by_the_pool(deployed: Deployment) -> None:
    writable = ("-writable", "-not", "-type", "l", "-print")
    found = hosts.run(
        deployed.pool, "find", "/opt/socketpool", "/etc/socketpool", *writable, user="socketpool"
    )
    assert found.stdout == ""


def test_the_unit_may_do_next_to_nothing(deployed: Deployment) -> None:
    result = hosts.run(
        deployed.pool,
        *("systemd-analyze", "security", "--no-pager", "--threshold=20", "socketpool.service"),
    )
    exposure = re.findall(r"Overall exposure level .*: ([0-9.]+)", result.stdout)[0]
    assert float(exposure) < 2
    pid = deployed.main_process()
    status = hosts.run(deployed.pool, "cat", f"/proc/{pid}/status").stdout
    assert re.search(r"(?m)^NoNewPrivs:\t1$", status)
    assert re.search(r"(?m)^CapEff:\t0+$", status)
    assert re.search(r"(?m)^CapBnd:\t0+$", status)
    assert not re.search(r"(?m)^Uid:\t0\b", status)


def test_secrets_are_in_no_log_unit_process_list_or_output(deployed: Deployment) -> None:
    pool_token = hosts.run(deployed.pool, "cat", "/var/lib/socketpool/token").stdout.strip()
    lease_key = hosts.run(deployed.pool, "cat", "/var/lib/socketpool/lease.key").stdout.strip()
    gather = (
        "journalctl --no-pager; systemctl show socketpool; systemctl cat socketpool;"
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n';"
        "cat /var/lib/socketpool/logs/* /var/lib/socketpool/supervisord.conf"
        "    /var/lib/socketpool/conf.d/*; cat /etc/socketpool/pool.yml"
    )
    said = deployed.output
    with leased(deployed):
        for container in (deployed.pool, deployed.client):
            said += hosts.run(container, "sh", "-c", gather + "; true", check=False).stdout
    assert "pool ready at" in said
    assert "socketpool tunnel @pool web" in said.replace("\n", " ")
    assert "socketpool_client" in deployed.output or "client.yml" in deployed.output
    for secret in (deployed.token, pool_token, lease_key):
        assert len(secret) > 20
        assert secret not in said
    stat = "stat -c '%a %U' /home/acme/.config/socketpool/pool.token"
    assert hosts.run(deployed.client, "sh", "-c", stat).stdout == "600 acme\n"


def test_the_client_has_manual_pages_and_completion(deployed: Deployment) -> None:
    complete = (
        "_SOCKETPOOL_COMPLETE=bash_complete COMP_WORDS='socketpool dra' COMP_CWORD=1 socketpool;"
        "bash -n /usr/local/share/bash-completion/completions/socketpool_client;"
        "head -1 /usr/local/share/man/man1/socketpool_client.1"
    )
    said = hosts.run(deployed.client, "sh", "-c", complete, user="acme").stdout
    assert "plain,drain" in said
    assert '.TH "SOCKETPOOL_CLIENT" 1' in said


def test_the_newest_core_finds_nothing_to_change_in_what_the_oldest_did(
    deployed: Deployment,
) -> None:
    result = deployed.play(PLAYBOOKS / "site.yml")
    assert changes(result.stdout) == {"client": 0, "pool": 0}


def through(deployed: Deployment, place: str) -> str:
    """What is heard from a place that the account is asked to forward to."""
    ssh = f"timeout 20 ssh -o BatchMode=yes -W {place} socketpool-tunnel@pool"
    command = f"printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' | {ssh}"
    result = hosts.run(deployed.client, "sh", "-c", command, user="acme", check=False)
    return result.stdout + result.stderr


@contextlib.contextmanager
def leased(deployed: Deployment) -> Iterator[None]:
    """While a program of the client's works with a service."""
    tunnel = ("socketpool", "tunnel", "@pool", "web", "--", "cat")
    command = ("docker", "exec", "-i", "--user", "acme", deployed.client, *tunnel)

    def lives() -> bool:
        leases = hosts.run(deployed.pool, "socketpoolctl", "leases", "--json").stdout
        return len(json.loads(leases)) == 1

    with subprocess.Popen(command, stdin=subprocess.PIPE) as program:
        try:
            eventually(lives, "the lease", SETTLE_SECONDS)
            yield
        finally:
            program.communicate()
    assert program.returncode == 0


def put(container: str, path: str, data: bytes) -> None:
    """Write a file of the account acme."""
    command = ["docker", "exec", "-i", container]
    command += ["install", "-o", "acme", "-g", "acme", "-m", "600", "/dev/stdin", path]
    subprocess.run(command, input=data, check=True)
