"""How one host is reached and recognised, as ssh_config says it."""

from __future__ import annotations

import os
import pwd
import shlex
from dataclasses import dataclass
from pathlib import Path

from socketpool.config.destination import Destination
from socketpool.config.values import check_port
from socketpool.errors import ConfigError
from socketpool.tunnel.expansion import Tokens, expand
from socketpool.tunnel.options import (
    Options,
    algorithms,
    is_yes,
    not_obeyed,
    one,
    seconds,
    split_paths,
)

CONNECT_SECONDS = 15.0
ALIVE_SECONDS = 10.0
PROMPTS = 3
MIN_RSA_BITS = 1024

DEFAULT_IDENTITIES = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
DEFAULT_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
DEFAULT_SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"

_AGENT_OF_ENVIRONMENT = "SSH_AUTH_SOCK"


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
    agent: Path | None
    """The socket of the agent that is asked."""
    batch: bool
    """Whether the user is never asked for anything."""
    prompts: int
    """How often a wrong answer may be repeated."""
    methods: tuple[str, ...]
    """Ways to log in that are allowed, the preferred first."""
    public_key_algorithms: tuple[str, ...] | None
    known_hosts: tuple[Path, ...]
    """The user's own; accepted keys are added to the first."""
    system_known_hosts: tuple[Path, ...]
    known_hosts_command: tuple[str, ...]
    """A program and its arguments, whose tokens are expanded for each host key."""
    revoked_keys: tuple[Path, ...]
    accept_new: bool
    """Whether the first key of a host is trusted."""
    check_address: bool
    """Whether the key that is known for the host's address must be the same."""
    host_key_alias: str | None
    hash_known_hosts: bool
    host_key_algorithms: tuple[str, ...] | None
    ca_algorithms: tuple[str, ...] | None
    min_rsa_bits: int
    ciphers: tuple[str, ...] | None
    macs: tuple[str, ...] | None
    kex: tuple[str, ...] | None
    proxy_jump: tuple[str, ...]
    proxy_command: str
    """For a shell, expanded; empty when there is none."""
    address_family: str
    bind_address: str
    bind_interface: str
    connect_seconds: float
    alive_seconds: float
    """How often the host is asked for a sign of life."""
    alive_count: int
    """So many times in vain, and it counts as gone."""
    tokens: Tokens
    unsupported: tuple[str, ...]
    """Options that are set and not obeyed; nothing is less protected for it."""

    @property
    def patience(self) -> float:
        """After so many seconds of silence the connection counts as lost."""
        return self.alive_seconds * self.alive_count

    @property
    def name(self) -> str:
        """For messages."""
        return str(Destination(self.hostname, self.user, self.port if self.port != 22 else None))


def settings_of(
    destination: Destination,
    options: Options,
    standard: Options,
    unread: tuple[str, ...] = (),
) -> HostSettings:
    """The settings that the options say; raises ConfigError.

    ``standard`` are the options when nothing is configured, ``unread`` parts of the configuration
    that nobody has evaluated.
    """
    protecting, harmless = not_obeyed(options, standard)
    if protecting:
        raise ConfigError(
            f"the ssh_config for {destination.host} sets what can't be obeyed here: "
            f"{', '.join(protecting)}",
            hint="it may protect you, so nothing was connected. Leave it out for this host, or "
            "name a file without it: --ssh-config",
        )
    hostname = one(options, "hostname", destination.host).lower()
    account = pwd.getpwuid(os.geteuid()).pw_name
    user = one(options, "user") or account
    try:
        port = check_port(one(options, "port", "22"))
        connect_seconds = seconds(one(options, "connecttimeout", "0")) or CONNECT_SECONDS
        alive_seconds = seconds(one(options, "serveraliveinterval", "0")) or ALIVE_SECONDS
        alive_count = max(1, int(one(options, "serveralivecountmax", "3")))
        prompts = max(1, int(one(options, "numberofpasswordprompts", str(PROMPTS))))
        min_rsa_bits = int(one(options, "requiredrsasize", str(MIN_RSA_BITS)))
    except ValueError as error:
        raise ConfigError(f"the ssh_config for {destination.host}: {error}") from None
    alias = one(options, "hostkeyalias") or None
    jump = one(options, "proxyjump")
    tokens = Tokens(
        original=destination.host,
        hostname=hostname,
        port=port,
        user=user,
        jump=jump,
        alias=alias or hostname,
        home=str(home()),
        local_user=account,
    )

    def paths(values: list[str]) -> tuple[Path, ...]:
        return tuple(Path(expand(v, tokens)) for v in values if v.lower() not in {"none", ""})

    def chosen(name: str) -> tuple[str, ...] | None:
        """The algorithms that somebody chose; None where ssh's own list holds."""
        return algorithms(options, name) if options.get(name) != standard.get(name) else None

    def several(name: str, default: str) -> tuple[Path, ...]:
        return paths(split_paths(options.get(name, [default])))

    command = "" if jump else one(options, "proxycommand")
    return HostSettings(
        given=str(destination),
        hostname=hostname,
        port=port,
        user=user,
        identity_files=paths(options.get("identityfile", list(DEFAULT_IDENTITIES))),
        certificate_files=paths(options.get("certificatefile", [])),
        identities_only=is_yes(options, "identitiesonly"),
        agent=_agent(one(options, "identityagent", _AGENT_OF_ENVIRONMENT), options, tokens),
        batch=is_yes(options, "batchmode"),
        prompts=prompts,
        methods=_methods(options),
        public_key_algorithms=chosen("pubkeyacceptedalgorithms"),
        known_hosts=several("userknownhostsfile", DEFAULT_KNOWN_HOSTS),
        system_known_hosts=several("globalknownhostsfile", DEFAULT_SYSTEM_KNOWN_HOSTS),
        known_hosts_command=tuple(shlex.split(one(options, "knownhostscommand"))),
        revoked_keys=several("revokedhostkeys", ""),
        accept_new=one(options, "stricthostkeychecking").lower()
        in {"accept-new", "no", "off", "false"},
        check_address=is_yes(options, "checkhostip"),
        host_key_alias=alias,
        hash_known_hosts=is_yes(options, "hashknownhosts"),
        host_key_algorithms=chosen("hostkeyalgorithms"),
        ca_algorithms=chosen("casignaturealgorithms"),
        min_rsa_bits=min_rsa_bits,
        ciphers=chosen("ciphers"),
        macs=chosen("macs"),
        kex=chosen("kexalgorithms"),
        proxy_jump=tuple(each.strip() for each in jump.split(",") if each.strip()),
        proxy_command=expand(command, tokens, variables=False),
        address_family=one(options, "addressfamily", "any"),
        bind_address=one(options, "bindaddress"),
        bind_interface=one(options, "bindinterface"),
        connect_seconds=connect_seconds,
        alive_seconds=alive_seconds,
        alive_count=alive_count,
        tokens=tokens,
        unsupported=(*unread, *harmless),
    )


def _methods(options: Options) -> tuple[str, ...]:
    allowed = {
        "publickey": one(options, "pubkeyauthentication", "yes").lower() not in {"no", "false"},
        "keyboard-interactive": is_yes(options, "kbdinteractiveauthentication", "yes"),
    }
    preferred = one(options, "preferredauthentications", ",".join(allowed)).split(",")
    return tuple(method for method in preferred if allowed.get(method))


def _agent(value: str, options: Options, tokens: Tokens) -> Path | None:
    """The agent's socket; a variable's name is written with $ or is SSH_AUTH_SOCK."""
    if options.get("identityagent", [""])[0].lower() == "none":
        return None
    if value == _AGENT_OF_ENVIRONMENT or (value.startswith("$") and "{" not in value):
        path = os.environ.get(value.removeprefix("$"), "")
        return Path(path) if path else None
    return Path(expand(value, tokens))


def home() -> Path:
    """OpenSSH's idea of the home, whatever HOME says."""
    return Path(pwd.getpwuid(os.geteuid()).pw_dir)
