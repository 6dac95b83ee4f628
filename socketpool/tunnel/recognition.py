"""Whether a host is the one that it should be, decided as OpenSSH decides it.

A key that is revoked is refused whatever else is known of it; a certificate counts when a trusted
authority signed it for this host, else the key in it counts as any key does.
"""

from __future__ import annotations

import ipaddress
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from socketpool.errors import ConfigError
from socketpool.tunnel.certificates import Certificate, plain_type, refusal, rsa_bits
from socketpool.tunnel.expansion import expand
from socketpool.tunnel.failures import HostKeyRefused
from socketpool.tunnel.hostkeys import HostKey, KnownHosts, Verdict, host_name, remember
from socketpool.tunnel.revocation import find_revocation
from socketpool.tunnel.sshdata import key_type

if TYPE_CHECKING:
    from pathlib import Path

    from socketpool.tunnel.hostsettings import HostSettings

COMMAND_SECONDS = 30.0
COMMAND_BYTES = 16 << 20
NONE = "NONE"


class Accepted(NamedTuple):
    """A key that was not known before; where it was added, if it was."""

    name: str
    path: Path | None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is known of one host, as read before it is connected to."""

    host: HostSettings
    known: KnownHosts
    name: str

    @classmethod
    def of(cls, host: HostSettings) -> Recognition:
        """Read the files, and ask KnownHostsCommand; raises ConfigError."""
        known = KnownHosts([*host.known_hosts, *host.system_known_hosts])
        made = cls(host, known, host_name(host.hostname, host.port, host.host_key_alias))
        made._ask_command("ORDER", None)
        return made

    @property
    def types(self) -> list[str]:
        """The types of keys that are known for the host, certificates where one is expected."""
        return self.known.types(self.name)

    @property
    def expects_certificate(self) -> bool:
        """Whether an authority is trusted to certify the host's key."""
        return self.known.has_authority(self.name)

    def check(self, shown: HostKey, address: str | None, *, accept_new: bool) -> Accepted | None:
        """Raise HostKeyRefused or ConfigError unless the key, or certificate, is the host's.

        With ``accept_new`` the first key of a host is trusted, which is then returned, and added
        to the user's first file; a changed one is refused all the same.  ``address`` is the one
        that was connected to.
        """
        host = self.host
        try:
            certificate = shown.certificate
        except ValueError as error:
            raise HostKeyRefused(f"{self.name} shows a malformed certificate: {error}") from None
        key = HostKey(plain_type(shown.type), certificate.plain) if certificate else shown
        self._ask_command("HOSTNAME", shown)
        self._check_revoked(key, certificate)
        bits = rsa_bits(key.blob)
        if bits is not None and bits < host.min_rsa_bits:
            raise HostKeyRefused(
                f"the RSA key of {self.name} has {bits} bits only",
                hint=f"the ssh_config wants {host.min_rsa_bits}: RequiredRSASize",
            )
        why_not = self._check_certificate(certificate) if certificate else ""
        if why_not is None:
            return None
        verdict, entry = self.known.judge(self.name, key)
        if verdict is Verdict.UNKNOWN and not certificate:
            verdict = self._judge_without_port(key)
        if verdict is Verdict.KNOWN:
            self._check_address(key, address)
            return None
        what = f"{key.type} {key.fingerprint}"
        if entry is not None:
            raise HostKeyRefused(
                f"the key of {self.name} is not the one that is known: it shows {what}, and line "
                f"{entry.line} of {entry.source} has {entry.key.type} {entry.key.fingerprint}",
                hint="somebody may be in between. If its operator confirms the new fingerprint: "
                f"ssh-keygen -f {shlex.quote(entry.source)} -R {shlex.quote(self.name)}, "
                "then again with --accept-new",
            )
        if not (accept_new or host.accept_new):
            raise HostKeyRefused(
                f"the key of {self.name} is not known: {what}{why_not}{self._unread()}",
                hint="compare the fingerprint with what its operator says, then run this again "
                "with --accept-new, or connect once with ssh",
            )
        if not host.known_hosts:
            return Accepted(self.name, None)
        remember(host.known_hosts[0], self.name, key, hashed=host.hash_known_hosts)
        return Accepted(self.name, host.known_hosts[0])

    def _check_revoked(self, key: HostKey, certificate: Certificate | None) -> None:
        what = f"the key of {self.name} is revoked: {key.type} {key.fingerprint}"
        path = find_revocation(self.host.revoked_keys, key.blob, certificate)
        if path is not None:
            raise HostKeyRefused(
                what, hint=f"RevokedHostKeys {path} says so; ask the host's operator"
            )
        authority = [certificate.authority] if certificate else []
        entry = self.known.revoked(self.name, key.blob, *authority)
        if entry is not None:
            raise HostKeyRefused(
                what, hint=f"line {entry.line} of {entry.source} says so; ask the host's operator"
            )

    def _check_certificate(self, certificate: Certificate) -> str | None:
        """None when it stands for the host, else why not, for the end of a message."""
        if self.known.authority(self.name, certificate) is None:
            signer = HostKey(key_type(certificate.authority), certificate.authority)
            return f" (its certificate is signed by {signer.fingerprint}, which is not trusted)"
        host = self.host.host_key_alias or self.host.hostname
        reason = refusal(certificate, host, self.host.ca_algorithms)
        return None if reason is None else f" (its certificate is not accepted: {reason})"

    def _judge_without_port(self, key: HostKey) -> Verdict:
        """OpenSSH trusts a host at any port that shows the key known for it without one."""
        if self.host.host_key_alias is not None or self.name == self.host.hostname:
            return Verdict.UNKNOWN
        verdict, _ = self.known.judge(self.host.hostname, key)
        return verdict if verdict is Verdict.KNOWN else Verdict.UNKNOWN

    def _check_address(self, key: HostKey, address: str | None) -> None:
        if not self.host.check_address or address is None or address == self.host.hostname:
            return
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return  # as OpenSSH: many hosts may be behind it
        name = host_name(address, self.host.port)
        verdict, entry = self.known.judge(name, key)
        if entry is not None and verdict is not Verdict.KNOWN:
            raise HostKeyRefused(
                f"the key of {self.name} is not the one of its address {address}, which line "
                f"{entry.line} of {entry.source} has",
                hint="the ssh_config compares them: CheckHostIP yes",
            )

    def _unread(self) -> str:
        return "".join(f" ({each})" for each in self.known.unreadable)

    def _ask_command(self, reason: str, shown: HostKey | None) -> None:
        """Read what KnownHostsCommand prints; raises ConfigError when it fails."""
        if not self.host.known_hosts_command:
            return
        more = {
            "I": reason,
            "H": self.name,
            "t": shown.type if shown else NONE,
            "f": shown.fingerprint if shown else NONE,
            "K": shown.base64 if shown else NONE,
        }
        command = [
            expand(word, self.host.tokens, more=more) for word in self.host.known_hosts_command
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = getattr(error, "strerror", None) or f"no end after {COMMAND_SECONDS:g} s"
            raise ConfigError(f"KnownHostsCommand {command[0]}: {why}") from None
        if done.returncode or len(done.stdout) > COMMAND_BYTES:
            raise ConfigError(
                f"KnownHostsCommand {command[0]} failed with exit code {done.returncode}",
                hint="without it no host's key can be trusted, as with ssh",
            )
        self.known.add(done.stdout.decode("utf-8", "replace"), f"KnownHostsCommand {command[0]}")
