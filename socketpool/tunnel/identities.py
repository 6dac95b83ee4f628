"""Which keys are shown to a host, in OpenSSH's order.

Keys of the agent that the configuration names, the agent's others, then those of files; each with
its certificates before it.  A private key is loaded, and its passphrase asked for, only once the
host has said that it would take the key.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from socketpool.tunnel.agent import Agent, HeldKey
from socketpool.tunnel.certificates import CERTIFIED, Certificate, rsa_bits
from socketpool.tunnel.keyfiles import (
    SECURITY_KEY,
    KeyUnusable,
    PassphraseNeeded,
    blob_of,
    load_private,
    public_blob,
    sign,
)
from socketpool.tunnel.sshdata import Reader, key_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack
    from pathlib import Path

    from socketpool.tunnel.hostsettings import HostSettings
    from socketpool.tunnel.keyfiles import PrivateKey


class AskUser(Protocol):
    """Asks the user; None when there is nobody to ask, or no answer."""

    def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
        """With ``echo`` the answer may be seen while it is typed."""


class CannotSign(Exception):
    """Why a key that the host would take can't be used, in words."""


class Identity(NamedTuple):
    """A key to show, what it is called in messages, and how to sign with it."""

    name: str
    blob: bytes
    """The key or the certificate."""
    sign: Callable[[bytes, str], bytes]
    """Of data and the name of an algorithm; raises CannotSign."""

    @property
    def plain(self) -> bytes:
        """The key itself."""
        return _plain(self.blob)


class Identities:
    """The keys for one host, over all connections to it."""

    def __init__(self, host: HostSettings, ask: AskUser) -> None:
        self._host = host
        self._ask = ask
        self._worked: bytes | None = None
        self._unlocked: dict[Path, PrivateKey] = {}

    def remember(self, identity: Identity) -> None:
        """Show this one first the next time."""
        self._worked = identity.blob

    def offers(self, stack: ExitStack, tried: list[str]) -> Iterator[Identity]:
        """Each to show, once; the agent answers until the stack is closed.

        What can't be shown is added to ``tried``.
        """
        found = list(self._all(stack, tried))
        found.sort(key=lambda identity: identity.blob != self._worked)
        seen: set[bytes] = set()
        for identity in found:
            bits = rsa_bits(identity.plain)
            if bits is not None and bits < self._host.min_rsa_bits:
                tried.append(f"{identity.name} has {bits} bits only")
            elif identity.blob not in seen:
                seen.add(identity.blob)
                yield identity
        yield from self._unknown(seen, tried)

    def _all(self, stack: ExitStack, tried: list[str]) -> Iterator[Identity]:
        files = {path: _public(path) for path in self._host.identity_files}
        ours = {_plain(blob) for blob in files.values() if blob is not None}
        certificates = self._certificates(files)
        ours |= {_plain(blob) for _, blob in certificates}
        agent, held = self._agent(stack, tried)
        # Those that the configuration names come first, and alone if it says so.
        for key in sorted(held, key=lambda each: _plain(each.blob) not in ours):
            if agent is None or (self._host.identities_only and _plain(key.blob) not in ours):
                continue
            name = f"{key_type(key.blob)} {key.comment} of the agent"
            yield from _forms(name, key.blob, certificates, partial(_agent_sign, agent, key.blob))
        in_agent = {_plain(key.blob) for key in held}
        for path, blob in files.items():
            if blob is None or _plain(blob) in in_agent:
                continue
            kind = key_type(blob)
            if kind.startswith(SECURITY_KEY) or not _has_private(path):
                if path.is_file():
                    where = "ssh-add loads it" if kind.startswith(SECURITY_KEY) else "not there"
                    tried.append(f"{kind} {path} (its private key has to be in the agent: {where})")
                continue
            yield from _forms(f"{kind} {path}", blob, certificates, partial(self._file_sign, path))

    def _unknown(self, seen: set[bytes], tried: list[str]) -> Iterator[Identity]:
        """Keys of files whose public half nothing tells before they are loaded."""
        certificates = self._certificates({})
        for path in self._host.identity_files:
            if _public(path) is not None or not path.is_file():
                continue
            try:
                blob = blob_of(self._load(path))
            except CannotSign as error:
                tried.append(str(error))
                continue
            if blob not in seen:
                seen.add(blob)
                name = f"{key_type(blob)} {path}"
                yield from _forms(name, blob, certificates, partial(self._file_sign, path))

    def _certificates(self, files: dict[Path, bytes | None]) -> list[tuple[str, bytes]]:
        """Certificates that are named, that lie beside a key, or that are named as a key."""
        beside = [path.with_name(path.name + "-cert.pub") for path in self._host.identity_files]
        named = [*self._host.certificate_files, *beside, *files]
        found = []
        for path in dict.fromkeys(named):
            blob = _public(path)
            if blob is not None and key_type(blob).endswith(CERTIFIED):
                found.append((path.name, blob))
        return found

    def _agent(self, stack: ExitStack, tried: list[str]) -> tuple[Agent | None, list[HeldKey]]:
        if self._host.agent is None:
            return None, []
        try:
            agent = stack.enter_context(Agent(self._host.agent))
            return agent, [key for key in agent.held() if _is_key(key.blob)]
        except (OSError, ValueError) as error:
            tried.append(f"the agent at {self._host.agent} does not answer ({error})")
            return None, []

    def _file_sign(self, path: Path, data: bytes, algorithm: str) -> bytes:
        return sign(self._load(path), data, algorithm)

    def _load(self, path: Path) -> PrivateKey:
        if path in self._unlocked:
            return self._unlocked[path]
        try:
            return load_private(path, None)
        except PassphraseNeeded:
            return self._unlock(path)
        except OSError as error:
            raise CannotSign(f"{path} can't be read: {error.strerror}") from None
        except KeyUnusable as error:
            raise CannotSign(f"{path}: {error}") from None

    def _unlock(self, path: Path) -> PrivateKey:
        for _ in range(self._host.prompts):
            passphrase = None if self._host.batch else self._ask(f"passphrase of {path}: ")
            if not passphrase:
                break
            try:
                self._unlocked[path] = load_private(path, passphrase)
            except PassphraseNeeded:
                continue
            except (OSError, KeyUnusable) as error:
                raise CannotSign(f"{path}: {error}") from None
            return self._unlocked[path]
        raise CannotSign(f"{path} is locked by a passphrase")


def _forms(
    name: str,
    blob: bytes,
    certificates: list[tuple[str, bytes]],
    sign_with: Callable[[bytes, str], bytes],
) -> Iterator[Identity]:
    """The key with each certificate for it, then as it is."""
    for certificate, shown in certificates:
        if _plain(shown) == _plain(blob) and shown != blob:
            yield Identity(f"{name} with {certificate}", shown, sign_with)
    yield Identity(name, blob, sign_with)


def _agent_sign(agent: Agent, blob: bytes, data: bytes, algorithm: str) -> bytes:
    signature = agent.sign(blob, data, algorithm)
    if signature is None:
        raise CannotSign("the agent does not sign with it")
    made = Reader(signature).text()
    if made != algorithm:
        raise CannotSign(f"the agent signs with {made} only")
    return signature


def _plain(blob: bytes) -> bytes:
    """The key of a certificate; a key as it is."""
    return Certificate.parse(blob).plain if key_type(blob).endswith(CERTIFIED) else blob


def _public(path: Path) -> bytes | None:
    blob = public_blob(path)
    return blob if blob is not None and _is_key(blob) else None


def _is_key(blob: bytes) -> bool:
    try:
        _plain(blob)
    except ValueError:
        return False
    return True


def _has_private(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"PRIVATE KEY-----" in file.read(256) or path.suffix == ".ppk"
    except OSError:
        return False
