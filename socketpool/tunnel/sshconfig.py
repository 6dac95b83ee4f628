"""What OpenSSH's configuration says of a host, and the chain of hosts that leads there.

``ssh -G`` is asked when the ssh program exists, so that Include, Match and the rest are read just
as OpenSSH reads them; else paramiko's parser, which knows less, and then that is said.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socketpool.config.destination import Destination
from socketpool.errors import ConfigError
from socketpool.tunnel.hostsettings import HostSettings, home, settings_of

if TYPE_CHECKING:
    from socketpool.tunnel.options import Options

MAX_HOPS = 8
SSH_G_SECONDS = 20.0


def resolve_chain(destination: Destination, config: Path | None = None) -> list[HostSettings]:
    """The hosts to go through in order, the destination last; raises ConfigError."""
    return _chain(destination, config, MAX_HOPS)


def _chain(destination: Destination, config: Path | None, hops_left: int) -> list[HostSettings]:
    if not hops_left:
        raise ConfigError(
            f"more than {MAX_HOPS} jumps lead to a host",
            hint="does a ProxyJump of your ssh_config lead back to itself?",
        )
    last = resolve(destination, config)
    if not last.proxy_jump:
        return [last]
    first, *others = last.proxy_jump
    # As OpenSSH: the first jump is reached as its own configuration says, the others through it.
    before = _chain(Destination.parse(first), config, hops_left - 1)
    before += [resolve(Destination.parse(each), config) for each in others]
    if len(before) >= MAX_HOPS:
        raise ConfigError(f"more than {MAX_HOPS} jumps lead to {last.name}")
    return [*before, last]


def resolve(destination: Destination, config: Path | None = None) -> HostSettings:
    """What the configuration says of one host; raises ConfigError."""
    if config is not None and not config.is_file():
        raise ConfigError(f"{config}: no such file", hint="name an ssh_config that exists")
    program = shutil.which("ssh")
    if program is None:
        options, unread = _parse(destination, config)
        return settings_of(destination, options, {}, unread)
    options = _ask_ssh(program, destination, config)
    return settings_of(destination, options, _ask_ssh(program, destination, Path("none")))


def _ask_ssh(program: str, destination: Destination, config: Path | None) -> Options:
    command = [program, "-G"]
    if config is not None:
        command += ["-F", str(config)]
    if destination.user:
        command += ["-l", destination.user]
    if destination.port:
        command += ["-p", str(destination.port)]
    try:
        done = subprocess.run(
            [*command, "--", destination.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # as of paths, which may be in any encoding
            timeout=SSH_G_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"ssh -G {destination.host} took longer than {SSH_G_SECONDS:g} s",
            hint="is there a `Match exec` in your ssh_config that waits?",
        ) from None
    if done.returncode:
        raise ConfigError(
            f"ssh can't read its configuration for {destination.host}: {done.stderr.strip()}",
            hint=f"`ssh -G {destination.host}` shows the same",
        )
    options: Options = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        options.setdefault(name.lower(), []).append(value)
    return options


def _parse(destination: Destination, config: Path | None) -> tuple[Options, tuple[str, ...]]:
    """Without OpenSSH: paramiko's parser on the files that it would read."""
    from paramiko import SSHConfig  # noqa: PLC0415 - see the package
    from paramiko.ssh_exception import SSHException  # noqa: PLC0415

    parser = SSHConfig()
    # Tokens are expanded by our own rules: paramiko's take the home from HOME, ssh never does.
    parser.TOKENS_BY_CONFIG_KEY = SSHConfig.TOKENS_BY_CONFIG_KEY | {
        "identityfile": [],
        "proxycommand": [],
    }
    text = ""
    for path in [config] if config else [home() / ".ssh" / "config", Path("/etc/ssh/ssh_config")]:
        if path.is_file():
            text += path.read_text(encoding="utf-8", errors="replace") + "\nMatch all\n"
    # Match is evaluated by paramiko, but for `exec`; what it includes is not read at all.
    missing = re.findall(r"(?im)^\s*(include|match\s.*?\bexec)\b", text)
    kept = re.sub(r"(?im)^(\s*)match\s.*?\bexec\b.*$", r"\1Host !*", text)
    try:
        parser.parse(iter(kept.splitlines()))
        found = parser.lookup(destination.host)
    except (SSHException, ValueError, KeyError) as error:
        raise ConfigError(
            f"the ssh_config can't be read: {error}",
            hint="install the ssh program, which reads all of it",
        ) from None
    values: dict[str, Any] = dict(found)
    options: Options = {
        name: value if isinstance(value, list) else ["none" if value is None else value]
        for name, value in values.items()
    }
    options |= {"user": [destination.user]} if destination.user else {}
    options |= {"port": [str(destination.port)]} if destination.port else {}
    names = {word.split()[0].title() + (" exec" if " " in word else "") for word in missing}
    return options, tuple(sorted(names))
