"""The main job through SSH, as a user runs it."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.pools import TOOLS, clean_environment, run_tool, shipped
from tests.support.sshd import keygen

if TYPE_CHECKING:
    from tests.support.pools import PoolMaker, RunningPool
    from tests.support.sshd import Sshd, SshdMaker

DATA = Path(__file__).parents[2] / "data" / "webflow-site.zip"
OWN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), termios.TIOCSCTTY, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""
TRIO = ("upload", "vendor", "download")
GIGABYTE = 1 << 30
DIGESTER = """
import hashlib
from socketpool.rsi import VendorServer

class Vendor(VendorServer):
    def transfer(self):
        for path in self.members.values():
            with path.open("rb") as file:
                self.report(hashlib.file_digest(file, "sha256").hexdigest())
"""


def client(
    server: Sshd, pool: RunningPool, archive: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    """``socketpool_client`` through the server."""
    return run_tool(
        "socketpool_client",
        *("--ssh", server.alias, "--ssh-config", server.client_config),
        *(pool.host, pool.port, archive, *TRIO, *options),
    )


def members(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_an_archive_is_processed_through_ssh(
    any_server: Sshd, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(any_server, trio, archive, "--token-file", trio.state / "token")
    assert result.returncode == 0, result.stderr
    assert "changed: 22 members" in result.stdout
    before, after = members(DATA), members(archive)
    assert list(after) == list(before)
    assert sum(before[name] != after[name] for name in before) == 22
    assert trio.request("GET", "/v1/leases").body == []


def test_a_host_is_named_by_user_and_port_where_it_has_no_alias(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    server = new_sshd.start()
    lines = server.client_config.read_text().splitlines(keepends=True)
    said = ("Host ", "  HostName", "  Port", "  User ")
    server.client_config.write_text("".join(x for x in lines if not x.startswith(said)))
    server.alias = f"{getpass.getuser()}@127.0.0.1:{server.port}"
    result = client(server, trio, archive, "--token-file", trio.state / "token")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("stdin", ["the terminal", "a file"])
def test_a_passphrase_is_asked_for_at_the_terminal_and_not_shown(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path, stdin: str
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    server = new_sshd.make()
    (server.folder / "user").unlink()
    keygen(server.folder / "user", passphrase="open sesame")
    shutil.copy(server.folder / "user.pub", server.folder / "authorized_keys")
    server.start()
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [
            # Makes the terminal its own, where getpass looks for it.
            *(sys.executable, "-c", OWN_TERMINAL, os.ttyname(theirs)),
            TOOLS / "socketpool_client",
            *("--ssh", server.alias, "--ssh-config", server.client_config),
            *("--token-file", trio.state / "token"),
            *(trio.host, str(trio.port), archive, *TRIO),
        ],
        stdin=theirs if stdin == "the terminal" else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=clean_environment(tmp_path),
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # its end
            while data := os.read(ours, 4096):
                shown += data
                if data.endswith(b"user: "):
                    os.write(ours, b"open sesame\n")
    os.close(ours)
    assert process.returncode == 0, shown
    assert f"passphrase of {server.folder}/user: ".encode() in shown
    assert b"sesame" not in shown


def test_a_proxy_command_may_ask_at_the_terminal(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    program = tmp_path / "proxy"
    program.write_text(
        "#!/bin/sh\nprintf 'word: ' >/dev/tty\nread -r word </dev/tty\n"
        'test "$word" = sesame && exec ssh -F "$1" -W "$2" beyond\n'
    )
    program.chmod(0o755)
    first = new_sshd.start("beyond")
    server = new_sshd.make(
        client_options=f"ProxyCommand {program} {first.client_config} {first.host}:%p"
    ).start()
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [
            *(sys.executable, "-c", OWN_TERMINAL, os.ttyname(theirs)),
            TOOLS / "socketpool_client",
            *("--ssh", server.alias, "--ssh-config", server.client_config),
            *("--token-file", trio.state / "token"),
            *(trio.host, str(trio.port), archive, *TRIO),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=clean_environment(tmp_path),
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # its end
            while data := os.read(ours, 4096):
                shown += data
                if data.endswith(b"word: "):
                    os.write(ours, b"sesame\n")
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"changed: 22 members" in shown


def test_a_passphrase_is_asked_for_by_a_program_where_there_is_no_terminal(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    server = new_sshd.make()
    (server.folder / "user").unlink()
    keygen(server.folder / "user", passphrase="open sesame")
    shutil.copy(server.folder / "user.pub", server.folder / "authorized_keys")
    server.start()
    program = tmp_path / "askpass"
    program.write_text(f'#!/bin/sh\necho "$1" >>{tmp_path}/asked\necho open sesame\n')
    program.chmod(0o755)
    environment = clean_environment(tmp_path) | {"SSH_ASKPASS": str(program)}
    command: list[str | Path] = [
        *(TOOLS / "socketpool_client", "--ssh", server.alias),
        *("--ssh-config", server.client_config, "--token-file", trio.state / "token"),
        *(trio.host, str(trio.port), archive, *TRIO),
    ]

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,  # without a terminal
            env=environment | more,
            check=False,
        )

    refused = run()
    assert refused.returncode == 5
    assert f"{server.folder}/user is locked by a passphrase" in refused.stderr
    result = run(DISPLAY=":none")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "asked").read_text() == f"passphrase of {server.folder}/user: \n"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("/usr/lib/openssh/sftp-server", 0, "changed: 22 members"),
        ("echo Welcome to the pool", 5, "a login shell or a forced command answers"),
        ("head -c 300 /dev/urandom", 5, "--token-file"),
        ("printf '\\377\\377\\377\\377'", 5, "--token-file"),
        ("/bin/false", 5, "--token-file"),
    ],
)
def test_what_answers_instead_of_sftp_is_said_and_no_traceback(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path, command: str, code: int, said: str
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    server = new_sshd.start("there", f"ForceCommand {command}")
    result = client(server, trio, archive, "--state-dir", trio.state)
    assert result.returncode == code, result.stderr
    assert said in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_an_ordinary_account_needs_no_token_here_for_its_own_pool_there(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(new_sshd.start(), trio, archive, "--state-dir", trio.state)
    assert result.returncode == 0, result.stderr
    assert "changed: 22 members" in result.stdout


def test_where_no_token_is_found_it_is_said_how_to_give_one(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    archive = Path(shutil.copy(DATA, tmp_path))
    result = client(new_sshd.start(), trio, archive, "--state-dir", tmp_path)
    assert result.returncode == 5
    assert "--token-file" in result.stderr
    assert archive.read_bytes() == DATA.read_bytes()


def test_the_steps_one_by_one_go_through_ssh_too(
    new_sshd: SshdMaker, trio: RunningPool, tmp_path: Path
) -> None:
    """On a lease of the pool there, which each of them renews there."""
    archive = Path(shutil.copy(DATA, tmp_path))
    server = new_sshd.start()
    lease = tmp_path / "lease.json"
    taken = run_tool("socketpool", "lease", *TRIO, "--json", "--state-dir", trio.state)
    lease.write_text(taken.stdout)
    ports = {s["service"]: s["port"] for s in json.loads(taken.stdout)["services"]}

    def step(name: str, service: str, *options: object) -> subprocess.CompletedProcess[str]:
        return run_tool(
            *(f"{name}_client", trio.host, ports[service], archive, "--lease", lease),
            *("--ssh", server.alias, "--ssh-config", server.client_config, *options),
        )

    there = ("--pool", f"{trio.host}:{trio.port}", "--state-dir", trio.state)
    for name, service in zip(("uploader", "vendor", "downloader"), TRIO, strict=True):
        done = step(name, service, *there)
        assert (done.returncode, done.stderr) == (0, "")
    before, after = members(DATA), members(archive)
    assert sum(before[name] != after[name] for name in before) == 22
    assert server.log.count("Accepted publickey") == 3  # for the step and the renewals, one each
    assert run_tool("socketpool", "release", lease_of(lease), *there).returncode == 0


def lease_of(path: Path) -> str:
    return str(json.loads(path.read_text())["lease"])


def large_archive(folder: Path, size: int) -> tuple[Path, str]:
    """An archive of one member that can't be compressed, and the member's digest."""
    block = os.urandom(1 << 24)
    digest = hashlib.sha256()
    path = folder / "large.zip"
    with (
        zipfile.ZipFile(path, "w") as archive,
        archive.open(zipfile.ZipInfo("noise.txt"), "w", force_zip64=True) as member,
    ):
        for _ in range(size >> 24):
            member.write(block)
            digest.update(block)
    return path, digest.hexdigest()


def test_a_gigabyte_arrives_whole_although_its_connections_are_cut_again_and_again(
    new_sshd: SshdMaker, new_pool: PoolMaker, tmp_path: Path
) -> None:
    """The host is cut off, killed and started again in the middle of the upload."""
    server = new_sshd.start()
    pool = new_pool.start({"upload": shipped("upload"), "vendor": shipped("vendor", DIGESTER)})
    (tmp_path / "policy.yml").write_text("include: ['*']\n")
    archive, digest = large_archive(tmp_path, GIGABYTE)
    arguments = (
        *("--ssh", server.alias, "--ssh-config", server.client_config, "--json"),
        *("--token-file", pool.state / "token", "--policy", tmp_path / "policy.yml"),
        *(pool.host, pool.port, archive, "upload", "vendor"),
    )
    with subprocess.Popen(
        [TOOLS / "socketpool_client", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(tmp_path),
    ) as process:
        assert process.stdout is not None

        def restart() -> None:
            server.kill()
            server.start()

        faults = iter((server.cut, server.cut, restart))
        at = [GIGABYTE // 5, GIGABYTE // 2, GIGABYTE * 4 // 5]
        notes, summary = [], None
        for line in process.stdout:
            event = json.loads(line)
            sys.stdout.write(line)  # shown when the test fails
            if event["event"] == "progress" and at and event["done"] > at[0]:
                at.pop(0)
                next(faults)()
            notes += [event["text"]] if event["event"] == "note" else []
            summary = event if event["event"] == "summary" else summary
    assert process.returncode == 0
    assert not at
    assert sum("connected again" in note for note in notes) == 3
    assert summary is not None
    assert digest in json.dumps(summary)
    assert server.log.count("Accepted publickey") == 4
