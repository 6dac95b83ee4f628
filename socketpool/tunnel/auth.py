"""Logging in with keys: those of the agent, of files, and certificates for either.

In OpenSSH's order: the key that worked last time, the agent's, files that need no passphrase; only
then a passphrase is asked for.  paramiko can't ask beforehand whether a key would be taken.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
from typing import TYPE_CHECKING, NamedTuple

import paramiko
from paramiko.ssh_exception import (
    AuthenticationException,
    BadAuthenticationType,
    PasswordRequiredException,
    SSHException,
)

from socketpool.tunnel.failures import HostUnreachable, LoginRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from socketpool.tunnel.settings import HostSettings

    Ask = Callable[[str], str | None]
    """Asks the user for a passphrase; None when there is nobody to ask."""

PASSPHRASE_TRIES = 3
CERTIFIED = "-cert-v01@openssh.com"
KEY_CLASSES: tuple[type[paramiko.PKey], ...] = (
    paramiko.Ed25519Key,
    paramiko.ECDSAKey,
    paramiko.RSAKey,
)


class Identity(NamedTuple):
    """A key to show, and what it is called in messages."""

    name: str
    key: paramiko.PKey


class Identities:
    """The keys for one host, over all connections to it."""

    def __init__(self, host: HostSettings, ask: Ask) -> None:
        self._host = host
        self._ask = ask
        self._worked: Identity | None = None
        self._unlocked: dict[Path, paramiko.PKey] = {}

    def log_in(self, transport: paramiko.Transport) -> None:
        """Authenticate; raises LoginRefused, which tells the keys that were tried."""
        tried: list[str] = []
        with contextlib.ExitStack() as stack:
            held = self._agent_keys(stack)
            for identity in self._candidates(held, tried):
                tried.append(identity.name)
                if self._try(transport, identity, tried):
                    # A key of the agent's is found there again; the agent is closed by then.
                    if not isinstance(identity.key, paramiko.AgentKey):
                        self._worked = identity
                    return
        raise self._refused(tried)

    def _try(self, transport: paramiko.Transport, identity: Identity, tried: list[str]) -> bool:
        try:
            more = transport.auth_publickey(self._host.user, identity.key)
        except BadAuthenticationType as error:
            raise LoginRefused(
                f"{self._host.name} takes no keys, only: {', '.join(error.allowed_types)}",
                hint="its sshd_config needs PubkeyAuthentication yes for this account",
            ) from None
        except AuthenticationException:
            if not transport.is_active():
                raise self._refused(tried, "and then closed the connection") from None
            return False
        except (SSHException, EOFError, OSError) as error:
            if transport.is_active():  # an algorithm that the two don't share
                tried[-1] += f" ({error})"
                return False
            raise HostUnreachable(
                f"{self._host.name} closed the connection while logging in"
            ) from None
        if more:
            raise self._refused(tried, f"and wants more than a key: {', '.join(more)}")
        return True

    def _refused(self, tried: list[str], further: str = "") -> LoginRefused:
        keys = "tried: " + "; ".join(tried) if tried else "there was no key to try"
        further = f", {further}" if further else ""
        return LoginRefused(
            f"{self._host.name} takes none of the keys{further} ({keys})",
            hint="put your public key into its authorized_keys, load the key into your agent, or "
            "name it: IdentityFile in ssh_config",
        )

    def _agent_keys(self, stack: contextlib.ExitStack) -> list[paramiko.AgentKey]:
        """The keys of the agent, which signs with them until the stack is closed."""
        if not self._host.agent:
            return []
        try:
            agent = paramiko.Agent()
        except (SSHException, OSError):
            return []
        stack.callback(agent.close)
        keys = list(agent.get_keys())
        for key in keys:
            if key.get_name().endswith(CERTIFIED):
                # Else paramiko shows the bare key where it knows to find one in a certificate.
                key.load_certificate(paramiko.Message(key.blob))
        return keys

    def _candidates(self, keys: list[paramiko.AgentKey], tried: list[str]) -> Iterator[Identity]:
        seen: set[bytes] = set()

        def fresh(identity: Identity) -> bool:
            blob = _shown(identity.key)
            return not (blob in seen or seen.add(blob))  # type: ignore[func-returns-value]

        if self._worked is not None and fresh(self._worked):
            yield self._worked
        ours = {blob for path in self._host.identity_files if (blob := _public(path))}
        # Those that the configuration names come first, and alone if it says so.
        for held in sorted(keys, key=lambda each: each.asbytes() not in ours):
            if self._host.identities_only and held.asbytes() not in ours:
                continue
            identity = Identity(f"{held.get_name()} {held.comment} of the agent", held)
            if fresh(identity):
                yield identity
        in_agent = {key.asbytes() for key in keys}
        locked = []
        for path in self._host.identity_files:
            if not path.is_file():
                continue
            try:
                key = self._unlocked.get(path) or _load(path, None)
            except PasswordRequiredException:
                if _public(path) not in in_agent:
                    locked.append(path)
                continue
            except (SSHException, OSError, ValueError) as error:
                tried.append(f"{path} can't be read: {error}")
                continue
            yield from filter(fresh, self._forms(path, key))
        for path in locked:
            unlocked = self._unlock(path, tried)
            if unlocked is not None:
                yield from filter(fresh, self._forms(path, unlocked))

    def _forms(self, path: Path, key: paramiko.PKey) -> Iterator[Identity]:
        """The key with each certificate for it, then alone."""
        name = f"{key.get_name()} {path}"
        for certificate in (path.with_name(path.name + "-cert.pub"), *self._host.certificate_files):
            if not certificate.is_file():
                continue
            certified = copy.copy(key)
            try:
                certified.load_certificate(str(certificate))
            except (SSHException, OSError, ValueError):
                continue  # of another key
            yield Identity(f"{name} with {certificate.name}", certified)
        yield Identity(name, key)

    def _unlock(self, path: Path, tried: list[str]) -> paramiko.PKey | None:
        for _ in range(PASSPHRASE_TRIES):
            passphrase = self._ask(f"passphrase of {path}: ")
            if not passphrase:
                break
            with contextlib.suppress(SSHException, ValueError):
                self._unlocked[path] = _load(path, passphrase)
                return self._unlocked[path]
        tried.append(f"{path} is locked by a passphrase")
        return None


def _load(path: Path, passphrase: str | None) -> paramiko.PKey:
    """The private key of a file; raises PasswordRequiredException, SSHException or OSError."""
    failure: Exception = SSHException("not a private key")
    for cls in KEY_CLASSES:
        try:
            return cls.from_private_key_file(str(path), passphrase)
        except PasswordRequiredException:
            raise
        except (SSHException, ValueError) as error:
            failure = error
    raise failure


def _public(path: Path) -> bytes | None:
    """The public key beside a private one, which need not be there itself."""
    try:
        fields = path.with_name(path.name + ".pub").read_text(encoding="utf-8").split()
        return base64.b64decode(fields[1])
    except (OSError, ValueError, IndexError, binascii.Error):
        return None


def _shown(key: paramiko.PKey) -> bytes:
    """What of a key the server gets to see: it or its certificate."""
    blob = key.public_blob
    return key.asbytes() if blob is None else blob.key_blob
