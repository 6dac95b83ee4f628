"""Member names: raw bytes that may be anything, and the three things done with them.

Names are compared as raw bytes and never become paths on their own.  This module shows them safely
to people, says which of them no archive of ours carries, and gives the text that a policy judges.
"""

from __future__ import annotations

import re
import unicodedata

_SHOWN = 200
# Most names are plain, and matching this once is cheaper than searching for each oddity.
_PLAIN = re.compile(rb"[A-Za-z0-9_-]+(?:[./ ][A-Za-z0-9_-]+)*")
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f]|(?:^|[/\\])\.\.(?:[/\\]|$)|^[/\\]|^[A-Za-z]:|^$")
_ODD = re.compile(rb"\\|//|(?:^|/)\./|[. ](?:/|$)")


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


def fold(name: str) -> str:
    """Case and Unicode composition no longer matter after this."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _tidy(name: str) -> str:
    """One separator, no empty or ``.`` parts, and no trailing dots and spaces.

    Windows drops the latter, so that ``server.key.`` is ``server.key`` there.
    """
    parts = (part.rstrip(". ") for part in name.replace("\\", "/").split("/"))
    return "/".join(part for part in parts if part)
