"""What OpenSSH's configuration says of a host, and the chain of hosts that leads there.

``ssh -G`` is asked when the ssh program exists, so that Include, Match and the rest are read just
as OpenSSH reads them; else paramiko's parser, which knows less, and then that is said.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socketpool.config.destination import Destination
from socketpool.config.fields import check_port
from socketpool.errors import ConfigError
from socketpool.tunnel.expansion import Tokens, expand

Options = dict[str, list[str]]
"""The values of each option by its name in lower case, in the order in which they count."""

MAX_HOPS = 8
CONNECT_SECONDS = 15.0
ALIVE_SECONDS = 10.0
SSH_G_SECONDS = 20.0

_USED = (
    "addressfamily certificatefile connecttimeout globalknownhostsfile hashknownhosts host "
    "hostkeyalias hostname identitiesonly identityagent identityfile port proxycommand proxyjump "
    "serveralivecountmax serveraliveinterval user userknownhostsfile"
)
_IRRELEVANT = (
    # about terminals, commands, other forwardings, logs, and ways to log in that we don't have
    "addkeystoagent batchmode canonicaldomains canonicalizefallbacklocal canonicalizehostname "
    "canonicalizemaxdots canonicalizepermittedcnames channeltimeout checkhostip "
    "clearallforwardings controlmaster controlpath controlpersist dynamicforward "
    "enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash "
    "forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted "
    "gatewayports gssapiauthentication gssapiclientidentity gssapidelegatecredentials "
    "gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity "
    "gssapitrustdns hostbasedacceptedalgorithms hostbasedauthentication ignoreunknown include "
    "ipqos kbdinteractiveauthentication localcommand localforward loglevel logverbose "
    "numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand "
    "permitremoteopen preferredauthentications remotecommand remoteforward requesttty sendenv "
    "sessiontype setenv stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tag "
    "tcpkeepalive tunnel tunneldevice updatehostkeys visualhostkey xauthlocation"
)
HANDLED = frozenset((_USED + " " + _IRRELEVANT).split())
"""Options that are obeyed, or that mean nothing to a tunnel."""

DEFAULT_IDENTITIES = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
DEFAULT_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"

_AGENT_OF_ENVIRONMENT = frozenset({"SSH_AUTH_SOCK", "$SSH_AUTH_SOCK"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """How one host is reached and recognised; times in seconds."""

    given: str
    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    identities_only: bool
    agent: bool
    """Whether the agent of SSH_AUTH_SOCK is asked."""
    known_hosts: tuple[Path, ...]
    """The first is the user's own, to which accepted keys are added."""
    host_key_alias: str | None
    hash_known_hosts: bool
    proxy_jump: tuple[str, ...]
    proxy_command: tuple[str, ...]
    """A program and its arguments, expanded."""
    address_family: str
    connect_seconds: float
    alive_seconds: float
    """How often the host is asked for a sign of life."""
    alive_count: int
    """So many times in vain, and it counts as gone."""
    unsupported: tuple[str, ...]
    """Options that are set and not obeyed."""

    @property
    def patience(self) -> float:
        """After so many seconds of silence the connection counts as lost."""
        return self.alive_seconds * self.alive_count

    @property
    def name(self) -> str:
        """For messages."""
        return str(Destination(self.hostname, self.user, self.port if self.port != 22 else None))


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
    if program is not None:
        options = _ask_ssh(program, destination, config)
        standard = _ask_ssh(program, destination, Path("none"))
        unsupported = _unsupported(options, standard)
    else:
        options, unsupported = _parse(destination, config)
    return _settings(destination, options, unsupported)


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
            text=True,
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
    text = ""
    for path in [config] if config else [_home() / ".ssh" / "config", Path("/etc/ssh/ssh_config")]:
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
    return options, tuple(sorted(names | set(_unsupported(options, {}))))


def _unsupported(options: Options, standard: Options) -> tuple[str, ...]:
    """Names of the options that somebody set, and that are neither obeyed nor without meaning."""
    return tuple(
        sorted(
            f"{name} {' '.join(values)}" if name == "stricthostkeychecking" else name
            for name, values in options.items()
            if name not in HANDLED
            and values != standard.get(name)
            and not (name == "stricthostkeychecking" and values[0] in {"yes", "true", "ask"})
        )
    )


def _settings(
    destination: Destination, options: Options, unsupported: tuple[str, ...]
) -> HostSettings:
    def one(name: str, default: str = "") -> str:
        value = options.get(name, [default])[0]
        return default if value.lower() == "none" else value

    def paths(values: list[str], tokens: Tokens) -> tuple[Path, ...]:
        return tuple(Path(expand(v, tokens)) for v in values if v.lower() not in {"none", ""})

    hostname = one("hostname", destination.host)
    user = one("user") or pwd.getpwuid(os.geteuid()).pw_name
    try:
        port = check_port(one("port", "22"))
        connect_seconds = float(one("connecttimeout", str(CONNECT_SECONDS))) or CONNECT_SECONDS
        alive_seconds = float(one("serveraliveinterval", "0")) or ALIVE_SECONDS
        alive_count = max(1, int(one("serveralivecountmax", "3")))
    except ValueError as error:
        raise ConfigError(f"the ssh_config for {destination.host}: {error}") from None
    alias = one("hostkeyalias") or None
    tokens = Tokens(
        original=destination.host,
        hostname=hostname,
        port=port,
        user=user,
        jump=one("proxyjump"),
        alias=alias or hostname,
        home=str(_home()),
        local_user=pwd.getpwuid(os.geteuid()).pw_name,
    )
    agent = options.get("identityagent", ["SSH_AUTH_SOCK"])[0]
    if agent not in {"none", *_AGENT_OF_ENVIRONMENT}:
        unsupported += ("identityagent",)
    known = shlex.split(one("userknownhostsfile", DEFAULT_KNOWN_HOSTS))
    known += shlex.split(one("globalknownhostsfile", DEFAULT_GLOBAL_KNOWN_HOSTS))
    jump = one("proxyjump")
    command = [] if jump else shlex.split(one("proxycommand"))
    return HostSettings(
        given=str(destination),
        hostname=hostname,
        port=port,
        user=user,
        identity_files=paths(options.get("identityfile", list(DEFAULT_IDENTITIES)), tokens),
        certificate_files=paths(options.get("certificatefile", []), tokens),
        identities_only=one("identitiesonly") in {"yes", "true"},
        agent=agent in _AGENT_OF_ENVIRONMENT,
        known_hosts=paths(known, tokens),
        host_key_alias=alias,
        hash_known_hosts=one("hashknownhosts") in {"yes", "true"},
        proxy_jump=tuple(each.strip() for each in jump.split(",") if each.strip()),
        proxy_command=tuple(
            expand(word, tokens) for word in (command[1:] if command[:1] == ["exec"] else command)
        ),
        address_family=one("addressfamily", "any"),
        connect_seconds=connect_seconds,
        alive_seconds=alive_seconds,
        alive_count=alive_count,
        unsupported=unsupported,
    )


def _home() -> Path:
    return Path(pwd.getpwuid(os.geteuid()).pw_dir)  # OpenSSH's home, whatever HOME says
