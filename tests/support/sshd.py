"""Real sshd processes for tests: each with keys, a configuration and a client's ssh_config."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

from tests.support.pools import PoolMaker, connects
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
DROPBEAR_PROGRAM = shutil.which("dropbear") or "/usr/sbin/dropbear"
HOST = "127.0.0.1"

CONFIG = """\
ListenAddress {host}
Port {port}
HostKey {folder}/host_ed25519
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
MaxStartups 100
LogLevel VERBOSE
Subsystem sftp internal-sftp
{options}
"""

CLIENT = """\
Host {alias}
  HostName {host}
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
{options}
"""


CIPHERS = {
    "aes-gcm": "",
    "chacha20": "Ciphers chacha20-poly1305@openssh.com",
    "aes-ctr with etm": "Ciphers aes256-ctr\nMACs hmac-sha2-256-etm@openssh.com",
    "aes-ctr with mac": "Ciphers aes256-ctr\nMACs hmac-sha2-256",
}
"""Options of sshd for each family of ciphers; their packets are read in different ways."""
DROPBEAR = "dropbear"
FAMILIES = (*CIPHERS, DROPBEAR)


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair; returns the private one's file."""
    size = ["-b", "2048"] if kind == "rsa" else []  # the usual one takes seconds to make
    command: list[str | Path] = [
        "ssh-keygen",
        "-q",
        "-t",
        kind,
        *size,
        "-N",
        passphrase,
        "-C",
        path.name,
        "-f",
        path,
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@dataclass
class Sshd:
    """An sshd, and what a client needs to log in to it."""

    folder: Path
    port: int
    alias: str
    options: str = ""
    client_options: str = ""
    host: str = HOST
    prefix: list[str] = field(default_factory=list)
    """What it is started with, such as ``ip netns exec``."""
    pam: str | None = None
    """The rules of PAM that it obeys; it runs as root then, in its own mount namespace."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def client_config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def prepare(self) -> None:
        """Keys and files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        keygen(self.folder / "host_ed25519")
        user = keygen(self.folder / "user")
        shutil.copy(user.with_suffix(".pub"), self.folder / "authorized_keys")
        self.trust()
        self.write_client_config()

    def trust(self) -> None:
        """Have the client know the host's key as it is now."""
        kind, key, *_ = (self.folder / "host_ed25519.pub").read_text().split()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {kind} {key}\n")

    def write_client_config(self) -> None:
        values = {
            "alias": self.alias,
            "host": self.host,
            "port": self.port,
            "folder": self.folder,
            "user": getpass.getuser(),
            "options": self.client_options,
        }
        self.client_config.write_text(CLIENT.format(**values))

    def command(self) -> list[str | Path]:
        """What runs it; writes its configuration."""
        config = self.folder / "sshd_config"
        values = {"host": self.host, "port": self.port, "folder": self.folder}
        text = CONFIG.format(**values, options=self.options)
        if self.pam is not None:
            for option in ("UsePAM", "KbdInteractiveAuthentication"):
                text = text.replace(f"{option} no", f"{option} yes")
            rules = self.folder / "pam"
            rules.write_text(self.pam)
            script = 'mount --bind "$1" /etc/pam.d/sshd && shift && exec "$@"'
            self.prefix = ["unshare", "--mount", "sh", "-c", script, "sh", str(rules)]
        config.write_text(text)
        return [SSHD, "-D", "-e", "-f", config]

    def start(self) -> Self:
        command = self.command()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, self.log
            away = self.prefix != [] and self.pam is None  # in another network
            return away or connects(self.host, self.port)

        eventually(answers, f"sshd at port {self.port}")
        return self

    def ssh_works(self, *options: str) -> bool:
        """Whether OpenSSH's own client gets in by the same configuration, without being asked."""
        command: list[str | Path] = [
            "ssh",
            "-F",
            self.client_config,
            "-o",
            "BatchMode=yes",
            *options,
        ]
        done = subprocess.run(
            [*command, self.alias, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0

    def ssh_config_of(self, destination: str) -> dict[str, str]:
        """What OpenSSH's own client makes of a destination; nothing where it refuses it."""
        done = subprocess.run(
            ["ssh", "-F", self.client_config, "-G", destination],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        return {name: value for name, _, value in (line.partition(" ") for line in lines)}

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections."""
        assert self.process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def cut(self) -> None:
        """Kill whatever serves a connection; new ones are accepted."""
        for process in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def kill(self) -> None:
        """Kill it and its connections, as a crash of the host would."""
        if self.process is None:
            return
        children = self.sessions()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process = None


@dataclass
class Dropbear(Sshd):
    """The other SSH server that people meet; it knows no AES-GCM and has no configuration file.

    It reads the authorized_keys of the account's home alone, so in its own mount namespace another
    folder stands there.
    """

    def command(self) -> list[str | Path]:
        """See `Sshd`."""
        home = self.folder / "home"
        (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(self.folder / "authorized_keys", home / ".ssh")
        key = self.folder / "host_dropbear"
        convert: list[str | Path] = [
            "dropbearconvert",
            "openssh",
            "dropbear",
            self.folder / "host_ed25519",
            key,
        ]
        subprocess.run(convert, check=True, capture_output=True)
        account = pwd.getpwuid(os.geteuid()).pw_dir
        as_user = [] if os.geteuid() == 0 else ["--map-current-user", "--keep-caps"]
        server = [DROPBEAR_PROGRAM, "-F", "-E", "-s", "-p", f"{self.host}:{self.port}", "-r", key]
        return [
            *("unshare", "--mount", *as_user, "sh", "-c"),
            *(
                'mount --bind "$1" "$2" && shift 2 && exec "$@"',
                "sh",
                str(home),
                account,
                *map(str, server),
            ),
            *("-P", self.folder / "pid"),
        ]


class SshdMaker:
    """Makes servers, and ends all of them when its ``with`` block does."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._ports: Iterator[int] = iter(())

    def __enter__(self) -> Self:
        self._pools = self._stack.enter_context(PoolMaker())
        self._ports = iter(self._pools.ports())
        self._folder = self._pools.folder()
        return self

    def folder(self) -> Path:
        """A short private directory of its own."""
        return self._pools.folder()

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def make(
        self,
        alias: str = "there",
        options: str = "",
        client_options: str = "",
        kind: type[Sshd] = Sshd,
        **fields: object,
    ) -> Sshd:
        """One that is ready to be started."""
        port = next(self._ports)
        server = kind(
            self._folder / alias,
            port,
            alias,
            options,
            client_options,
            **fields,  # type: ignore[arg-type]
        )
        server.prepare()
        self._stack.callback(server.kill)
        return server

    def start(self, alias: str = "there", options: str = "", client_options: str = "") -> Sshd:
        """One that runs."""
        return self.make(alias, options, client_options).start()

    def start_family(self, family: str, options: str = "", client_options: str = "") -> Sshd:
        """One that runs, of one of the FAMILIES; Dropbear has no options."""
        if family == DROPBEAR:
            return self.make(DROPBEAR, "", client_options, kind=Dropbear).start()
        options = f"{CIPHERS[family]}\n{options}"
        return self.start(family.replace(" ", "-"), options, client_options)
