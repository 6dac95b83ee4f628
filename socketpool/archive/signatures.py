"""Archives that are signed: any change to a member breaks them, however carefully it is made.

Found are, by a member's name, JAR, APK, office documents, OpenDocument, EPUB, NuGet, VSIX, MSIX and
AppX, pkpass, IPA and other bundles of Apple, Firefox extensions, and manifests signed with PGP; by
their bytes APKs with a signing block, Chrome extensions, Android updates, and directories with a
signature of their own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from socketpool.archive import ziprecords as r
from socketpool.archive.names import show
from socketpool.archive.refusals import SignedArchive

if TYPE_CHECKING:
    from socketpool.archive.reader import Archive

_MARKS = (
    b"meta-inf/",
    b"signature",
    b"certificate",
    b".p7",
    b".psds",
    b".psdor",
    b".pkpass",
    b".sig",
    b".asc",
    b"embedded.",
    b"appxblockmap",
    b"_masreceipt",
    b"hap.sign",
    b"otacert",
    b".minisig",
)
"""Text of which one stands in every name that :data:`_SIGNATURE` matches, for a quick look."""
_SIGNATURE = re.compile(
    # JAR, APK (v1), AAR, EPUB and OpenDocument, Firefox extensions
    rb"meta-inf/(?:[^/]+\.(?:sf|rsa|dsa|ec)|sig-[^/]+|(?:document|macro|package)?signatures\.xml"
    rb"|cose\.(?:sig|manifest)|code_?signature[^/]*)"
    # Office (OPC), its macros, XPS
    rb"|_xmlsignatures/.+|(?:word|xl|ppt|visio)/vbaprojectsignature[^/]*\.bin"
    # VSIX and other OPC packages
    rb"|package/services/digital-signature/.+|.+\.(?:psdsxs|psdsor|psdor|psdcer)"
    # NuGet, VS Code's VSIX
    rb"|\.signature\.p7[sm]|\.signature\.(?:manifest|sig)|extension\.sig"
    # MSIX, AppX
    rb"|(?:appxmetadata/)?appxsignature\.p7x|(?:.+/)?appxblockmap\.xml"
    # pkpass of Apple Wallet
    rb"|(?:.+\.pkpass/)?signature"
    # IPA, frameworks and programs of Apple
    rb"|(?:.+/)?_codesignature/.+|(?:.+/)?embedded\.(?:mobileprovision|provisionprofile)"
    rb"|(?:.+/)?_masreceipt/.+|(?:.+/)?codesignature"
    # Adobe AIR, W3C widgets, Android updates' payload, Huawei
    rb"|meta-inf/(?:air/)?signatures\.xml|(?:author-)?signature\d*\.xml"
    rb"|meta-inf/com/android/otacert|meta-inf/otacert|hap\.sign"
    # PGP and other detached signatures of a list of the members
    rb"|(?:.+/)?(?:sha\d+sums?|md5sums?|checksums?|manifest)(?:\.txt)?\.(?:asc|sig|p7s|minisig)"
)
_BLOCK_MAGIC = b"APK Sig Block 42"
_CRX_MAGIC = b"Cr24"
_UPDATE_MAGIC = b"\xff\xff"
_STEP = 1 << 20


def signature(archive: Archive) -> str:
    """What signs the archive, as words for a message; empty when nothing does."""
    if archive.read(0, min(4, archive.size)) == _CRX_MAGIC:
        return "a Chrome extension's header"
    if _is_update(archive):
        return "the signature of an Android update in its comment"
    start = archive.ending.directory
    if start >= 16 and archive.read(start - 16, 16) == _BLOCK_MAGIC:
        return "an APK signing block"
    if archive.starts:
        last = archive.starts[-1]
        if last + r.record_length(archive.directory, last) < len(archive.directory):
            return "a signature of its directory"
    if _mentions_one(archive.directory):
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


def _is_update(archive: Archive) -> bool:
    """Whether the comment ends as Android's recovery expects it: offset, 0xffff, length."""
    ending = archive.ending
    comment = ending.comment_end - ending.position - 22
    if comment < 6 or ending.comment_end < 6:
        return False
    footer = archive.read(ending.comment_end - 6, 6)
    signed, stated = int.from_bytes(footer[:2], "little"), int.from_bytes(footer[4:], "little")
    return footer[2:4] == _UPDATE_MAGIC and stated == comment and 6 < signed <= comment


def _mentions_one(directory: bytes) -> bool:
    """A quick look that spares most archives the look at each name."""
    overlap = max(map(len, _MARKS))
    for at in range(0, len(directory), _STEP):
        part = directory[at : at + _STEP + overlap].lower()
        if any(mark in part for mark in _MARKS):
            return True
    return False
