"""Known host keys: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

paramiko's own reader knows neither markers nor patterns, so the files are read here.  Nothing is
ever added without being asked to.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from socketpool.errors import ConfigError
from socketpool.tunnel.failures import HostKeyRefused

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


class Verdict(StrEnum):
    """What the files say of a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a known_hosts file."""

    marker: str
    names: str
    key: HostKey
    path: Path
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
    """The keys of some files, of which the first is the user's own."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read them; those that don't exist are empty.  Raises ConfigError."""
        self._paths = paths
        self._entries = [entry for path in paths for entry in _read(path)]

    def types(self, name: str) -> list[str]:
        """The types of the keys that are known for a host, to be asked of it first."""
        return [entry.key.type for entry in self._about(name) if not entry.marker]

    def judge(self, name: str, key: HostKey) -> tuple[Verdict, Entry | None]:
        """What the files say of this key for this host, and where."""
        about = self._about(name)
        revoked = [e for e in self._entries if e.marker == REVOKED and e.key.blob == key.blob]
        for entry in revoked:
            if entry.covers(name):
                return Verdict.REVOKED, entry
        plain = [entry for entry in about if not entry.marker]
        for entry in plain:
            if entry.key == key:
                return Verdict.KNOWN, entry
        return (Verdict.CHANGED, plain[0]) if plain else (Verdict.UNKNOWN, None)

    def has_authority(self, name: str) -> bool:
        """Whether certificates are trusted for a host, which paramiko can't verify."""
        return any(entry.marker == AUTHORITY for entry in self._about(name))

    def _about(self, name: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.covers(name)]


def check_host_key(
    known: KnownHosts,
    name: str,
    key: HostKey,
    *,
    paths: Sequence[Path],
    accept_new: bool,
    hashed: bool,
) -> Path | None:
    """Raise HostKeyRefused unless the key is the host's.

    With ``accept_new`` the first key of a host is added to the first of the paths, which is then
    returned; a changed one is refused all the same.
    """
    verdict, entry = known.judge(name, key)
    if verdict is Verdict.KNOWN:
        return None
    shown = f"{key.type} {key.fingerprint}"
    if entry is not None and verdict is Verdict.REVOKED:
        raise HostKeyRefused(
            f"the key of {name} is revoked: {shown}",
            hint=f"line {entry.line} of {entry.path} says so; ask the host's operator",
        )
    if entry is not None:
        raise HostKeyRefused(
            f"the key of {name} is not the one that is known: it shows {shown}, and line "
            f"{entry.line} of {entry.path} has {entry.key.type} {entry.key.fingerprint}",
            hint="somebody may be in between. If its operator confirms the new fingerprint: "
            f"ssh-keygen -f {shlex.quote(str(entry.path))} -R {shlex.quote(name)}, "
            "then again with --accept-new",
        )
    if known.has_authority(name):
        raise HostKeyRefused(
            f"the key of {name} is not known by itself: {shown}",
            hint="known_hosts has an @cert-authority for it, and certificates of hosts are not "
            f"supported; add the key: {name} {key.type} {key.base64}",
        )
    if not accept_new or not paths:
        raise HostKeyRefused(
            f"the key of {name} is not known: {shown}",
            hint="compare the fingerprint with what its operator says, then run this again with "
            "--accept-new, or connect once with ssh",
        )
    _add(paths[0], name, key, hashed=hashed)
    return paths[0]


def _add(path: Path, name: str, key: HostKey, *, hashed: bool) -> None:
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


def _read(path: Path) -> Iterable[Entry]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes; no known_hosts file")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", hint="check UserKnownHostsFile") from None
    found = [_entry(line, path, number) for number, line in enumerate(lines, 1)]
    return [entry for entry in found if entry is not None]


def _entry(line: str, path: Path, number: int) -> Entry | None:
    """The line's entry; None for comments, and for what OpenSSH also passes over."""
    fields = line.split()
    marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (ValueError, binascii.Error):
        return None
    return Entry(marker, fields[0], HostKey(fields[1], blob), path, number)
