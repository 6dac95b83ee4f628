"""Known host keys: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

paramiko's own reader knows neither markers nor patterns, so the files are read here.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from socketpool.errors import ConfigError
from socketpool.tunnel.certificates import CERTIFIED, Certificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MAX_FILE_BYTES = 16 << 20
SSH_PORT = 22
REVOKED, AUTHORITY = "@revoked", "@cert-authority"


class HostKey(NamedTuple):
    """A public key: its type, and its bytes as SSH sends them."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` shows it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def base64(self) -> str:
        """As known_hosts holds it."""
        return base64.b64encode(self.blob).decode()

    @property
    def certificate(self) -> Certificate | None:
        """What it is if it is a certificate; raises ValueError for a malformed one."""
        return Certificate.parse(self.blob) if self.type.endswith(CERTIFIED) else None


class Verdict(StrEnum):
    """What the files say of a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class HostKeyEntry:
    """A line of a known_hosts file."""

    marker: str
    names: str
    key: HostKey
    source: str
    """The file or the command that has it."""
    line: int

    def covers(self, name: str) -> bool:
        """Whether the line is about a host; a pattern with ! excludes it."""
        if self.names.startswith("|1|"):
            return _hash_matches(self.names, name)
        found = False
        for pattern in self.names.split(","):
            negated = pattern.startswith("!")
            if _matches(name, pattern.removeprefix("!")):
                if negated:
                    return False
                found = True
        return found


def _matches(name: str, pattern: str) -> bool:
    # Only * and ? mean anything; the brackets around a host with a port are just that.
    return fnmatch.fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))


def _hash_matches(hashed: str, name: str) -> bool:
    try:
        _, _, salt, wanted = hashed.split("|")
        made = hmac.new(base64.b64decode(salt), name.lower().encode(), hashlib.sha1).digest()
        return hmac.compare_digest(made, base64.b64decode(wanted))
    except (ValueError, binascii.Error):
        return False


def host_name(host: str, port: int, alias: str | None = None) -> str:
    """What a host is called in the files."""
    if alias:
        return alias
    return host if port == SSH_PORT else f"[{host}]:{port}"


class KnownHosts:
    """The keys of some files, and of what a command printed."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read them; as OpenSSH does it, those that can't be read are empty.

        Raises ConfigError for one that is too large.
        """
        self.unreadable: list[str] = []
        """Why a file that exists can't be read."""
        self._entries: list[HostKeyEntry] = []
        for path in paths:
            try:
                self._entries += _parse(_read(path), str(path))
            except FileNotFoundError:
                pass
            except OSError as error:
                self.unreadable.append(f"{path}: {error.strerror}")

    def add(self, text: str, source: str) -> None:
        """Know what a text in the form of such a file says, too."""
        self._entries += _parse(text, source)

    def types(self, name: str) -> list[str]:
        """The types of the keys that are known for a host, to be asked of it first."""
        return [entry.key.type for entry in self._about(name) if not entry.marker]

    def authority(self, name: str, certificate: Certificate) -> HostKeyEntry | None:
        """Where the authority of a host's certificate is trusted for that host."""
        for entry in self._about(name):
            if entry.marker == AUTHORITY and entry.key.blob == certificate.authority:
                return entry
        return None

    def revoked(self, name: str, *blobs: bytes) -> HostKeyEntry | None:
        """Where one of the keys is marked as revoked for a host."""
        for entry in self._about(name):
            if entry.marker == REVOKED and entry.key.blob in blobs:
                return entry
        return None

    def judge(self, name: str, key: HostKey) -> tuple[Verdict, HostKeyEntry | None]:
        """What is said of this key, which is no certificate, for this host, and where."""
        if (entry := self.revoked(name, key.blob)) is not None:
            return Verdict.REVOKED, entry
        plain = [entry for entry in self._about(name) if not entry.marker]
        for entry in plain:
            if entry.key == key:
                return Verdict.KNOWN, entry
        return (Verdict.CHANGED, plain[0]) if plain else (Verdict.UNKNOWN, None)

    def has_authority(self, name: str) -> bool:
        """Whether certificates are trusted for a host."""
        return any(entry.marker == AUTHORITY for entry in self._about(name))

    def _about(self, name: str) -> list[HostKeyEntry]:
        return [entry for entry in self._entries if entry.covers(name)]


def remember(path: Path, name: str, key: HostKey, *, hashed: bool) -> None:
    """Add a host's key to a file; raises ConfigError."""
    if hashed:
        salt = os.urandom(hashlib.sha1(usedforsecurity=False).digest_size)
        made = hmac.new(salt, name.lower().encode(), hashlib.sha1).digest()
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(made).decode()}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(fd, "r+b", buffering=0) as file:  # noqa: PTH123 - a descriptor
            size = file.seek(0, os.SEEK_END)
            line = f"{name} {key.type} {key.base64}\n"
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = "\n" + line
            file.write(line.encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}: the host's key can't be kept") from None


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; no known_hosts file")
    return data.decode("utf-8", "replace")


def _parse(text: str, source: str) -> Iterable[HostKeyEntry]:
    found = [_entry(line, source, number) for number, line in enumerate(text.split("\n"), 1)]
    return [entry for entry in found if entry is not None]


def _entry(line: str, source: str, number: int) -> HostKeyEntry | None:
    """The line's entry; None for comments, and for what OpenSSH also passes over."""
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (ValueError, binascii.Error):
        return None
    return HostKeyEntry(marker, fields[0], HostKey(fields[1], blob), source, number)
