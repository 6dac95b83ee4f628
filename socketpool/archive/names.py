"""Member names: raw bytes that may be anything, and the three things done with them.

Names are compared as raw bytes and never become paths on their own.  This module shows them safely
to people, says which of them no archive of ours carries, and gives the text that a policy judges.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from typing import Final

from socketpool.archive.ziprecords import UNICODE_PATH_ID, find_field

_SHOWN = 200
# Most names are plain, and matching this once is cheaper than searching for each oddity.
_PLAIN = re.compile(rb"[A-Za-z0-9_-]+(?:[./ ][A-Za-z0-9_-]+)*")
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f]|(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:|^$")
_ABOVE = re.compile(rb"^(?:\.?/)+")
_ODD = re.compile(rb"\\|^/|//|(?:^|/)\./|[. ](?:/|$)")

_MULTI_BYTE: Final = ("cp932", "euc_jp", "gbk", "gb18030", "big5", "big5hkscs", "cp949", "johab")
_CODE_PAGES: Final = (
    *_MULTI_BYTE,
    *("cp437", "cp720", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857", "cp858", "cp860"),
    *("cp861", "cp862", "cp863", "cp864", "cp865", "cp866", "cp869", "cp874", "cp1125"),
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258"),
    *("koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "mac_greek", "mac_latin2", "mac_turkish"),
    *("latin_1", "iso8859_2", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9"),
    "iso8859_15",
)
"""Encodings in which systems have written names into zips."""


def text(raw: bytes) -> str:
    """A readable form: UTF-8 when it is that, else the code page zip was born with."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp437")


def show(raw: bytes) -> str:
    """The name in quotes for a message: no control or direction character reaches a terminal."""
    shown = raw.decode(errors="backslashreplace")
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "…"
    return repr(shown)


def is_unsafe(raw: bytes) -> bool:
    """Whether the name is empty, absolute, climbs with ``..`` or holds control characters.

    Backslashes count as separators because some programs read them so.
    """
    return _PLAIN.fullmatch(raw) is None and _UNSAFE.search(raw) is not None


def sent_name(raw: bytes) -> bytes:
    """The name under which a member travels: without ``/`` and ``./`` in front, as extracted.

    Some exporters write absolute names, and bsdtar writes ``./name``; every program extracts them
    below the folder of the user's choice.
    """
    if raw[:1] not in (b"/", b"."):
        return raw
    return _ABOVE.sub(b"", raw)


def same_name(one: bytes, another: bytes) -> bool:
    """Whether two names differ at most in the separator between folders."""
    return one == another or one.replace(b"\\", b"/") == another.replace(b"\\", b"/")


def is_utf8(raw: bytes) -> bool:
    """Whether the name is UTF-8 that isn't ASCII, and so needs the flag that says so."""
    if raw.isascii():
        return False
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def readings(raw: bytes) -> tuple[str, ...]:
    """The folded texts a policy has to judge: a name is sent only if all of them may be.

    ASCII names have one.  A name that is not ASCII is read differently by different programs, so
    both readings count.
    """
    if _PLAIN.fullmatch(raw) is not None:
        return (raw.decode("ascii").lower(),)
    odd = _ODD.search(raw) is not None
    if raw.isascii():
        folded = raw.decode("ascii").lower()
        return (_tidy(folded) if odd else folded,)
    texts = {fold(text(raw)), fold(raw.decode("cp437"))}
    return tuple(sorted(_tidy(each) if odd else each for each in texts))


def every_reading(raw: bytes, *, single_byte: bool) -> frozenset[str]:
    """The folded texts that any program could see in a name whose encoding is not certain.

    Without ``single_byte`` only encodings are tried in which characters hide ASCII: for patterns
    in ASCII all others are alike.
    """
    found = set(readings(raw))
    for page in _CODE_PAGES if single_byte else _MULTI_BYTE:
        try:
            decoded = raw.decode(page)
        except UnicodeDecodeError:
            continue
        found.add(_tidy(fold(decoded)))
    return frozenset(found)


def unicode_path(extra: bytes, name: bytes) -> tuple[bytes, bool]:
    """The name in a Unicode path field, and whether its checksum is that of ``name``.

    Windows programs write one beside a name in the system's code page.  The name is empty when
    there is none.
    """
    found = find_field(extra, UNICODE_PATH_ID)
    if found is None or found[1] - found[0] < 6:
        return b"", False
    start, end = found
    stated = int.from_bytes(extra[start + 1 : start + 5], "little")
    return extra[start + 5 : end], stated == zlib.crc32(name)


def is_certain(raw: bytes) -> bool:
    """Whether all programs agree on the characters, or should: ASCII and UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def fold(name: str) -> str:
    """Case and Unicode composition no longer matter after this."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _tidy(name: str) -> str:
    """One separator, no empty or ``.`` parts, and no trailing dots and spaces.

    Windows drops the latter, so that ``server.key.`` is ``server.key`` there.
    """
    parts = (part.rstrip(". ") for part in name.replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part)
