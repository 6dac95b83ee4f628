"""Archives that are signed: any change to a member breaks them, however carefully it is made.

Found are signed JARs and APKs (by file or by signing block), signed office and e-book documents,
and directories with a signature of their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.names import show
from socketpool.archive.refusals import SignedArchive

if TYPE_CHECKING:
    from socketpool.archive.reader import Archive

_FOLDERS = (b"meta-inf/", b"_xmlsignatures/")
_SIGNATURE = re.compile(
    rb"meta-inf/(?:[^/]+\.(?:sf|rsa|dsa|ec)|sig-[^/]+|(?:document)?signatures\.xml)|_xmlsignatures/.+"
)
_BLOCK_MAGIC = b"APK Sig Block 42"
_STEP = 1 << 20


def signature(archive: Archive) -> str:
    """What signs the archive, as words for a message; empty when nothing does."""
    start = archive.ending.directory
    if start >= 16 and archive.read(start - 16, 16) == _BLOCK_MAGIC:
        return "an APK signing block"
    if archive.starts:
        last = archive.starts[-1]
        if last + r.record_length(archive.directory, last) < len(archive.directory):
            return "a signature of its directory"
    if _mentions_folder(archive.directory):
        for ordinal in range(len(archive)):
            name = archive.name(ordinal)
            if _SIGNATURE.fullmatch(name.lower()):
                return show(name)
    return ""


def check_unsigned(archive: Archive) -> None:
    """Refuse to change a signed archive."""
    found = signature(archive)
    if found:
        raise SignedArchive(
            f"The archive is signed ({found}); a change would break the signature.",
            hint="Nothing was changed. Use --allow-signed if it will be signed again.",
        )


def _mentions_folder(directory: bytes) -> bool:
    """A quick look that spares most archives the look at each name."""
    overlap = max(map(len, _FOLDERS))
    for at in range(0, len(directory), _STEP):
        part = directory[at : at + _STEP + overlap].lower()
        if any(folder in part for folder in _FOLDERS):
            return True
    return False
