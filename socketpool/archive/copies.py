"""Names of which a file's name could be a copy: ``auth.json`` for ``auth (1).json.bak``.

Editors, file managers, package managers and people leave copies beside the file they copy, and a
copy of a file with credentials holds the same credentials.  The names given here only serve to
deny; that some are far-fetched costs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORDS: Final = (
    "copy|copie|kopie|copia|cópia|kopia|kopio|копия|kopi"
    "|bak|backup|back|bck|bkp|bk|old|older|orig|original|saved?|sav|prev|previous|te?mp|new|final"
    "|disabled|off|dist|rpmsave|rpmnew|rpmorig|dpkg-(?:old|dist|new|tmp)|ucf-(?:old|dist|new)"
    "|mine|theirs|base|local|remote|prod|production|dev|development|stag|staging|tests?|live|qa|uat"
    "|v?\\d{1,4}|\\d{8}|\\d{10,14}|\\d{4}-\\d\\d?-\\d\\d?|\\d\\d?-\\d\\d?-\\d{4}"
)
_SUFFIX: Final = re.compile(
    # an editor's swap and undo files, and what version control and package managers add
    r"(?:~\d*~?|\.(?:sw[a-p]|un~|rej|r\d+|lock|part|download|crdownload|" + _WORDS + r")|\.~\d+~"
    # another form: the text of it, packed, or encoded
    r"|\.(?:txt|text|md|json|xml|ya?ml|ini|csv|conf|cfg|log|rtf|b64|base64|enc|hex"
    r"|gz|bz2|xz|zst|lz4|br|zip|7z|rar|tar|tgz))$"
)
_STEM: Final = re.compile(
    r"(?:[\s._-]+(?:" + _WORDS + r")(?:[\s._-]*\(?\d{0,3}\)?)?"
    r"|\s*\((?:\d{1,3}|" + _WORDS + r")\)|\s*\[\d{1,3}\])$"
)
_START: Final = re.compile(
    r"(?:copy(?: \(\d+\))? of |kopie von |copie de |copia (?:de|di) |cópia de |копия |backup of "
    r"|(?:old|bak|backup|copy|orig|new|tmp)[\s._-]+|~\$|\.?#|\._)"
)
_PAGES: Final = (".html", ".htm", ".css", ".js", ".mjs", ".cjs")
_MARK: Final = re.compile(
    r"[~#(\[$]|[\s._-](?:"
    + _WORDS
    + r")(?:\.[^.]*)?$|^(?:copy|old|bak|orig|new|tmp|cop|kop|cóp|коп)"
)
_MAX_ROUNDS: Final = 5


def is_no_copy(part: str) -> bool:
    """Whether the name has no mark of a copy, as most have: a quick look at it."""
    return part.endswith(_PAGES) and _MARK.search(part) is None


def originals(part: str) -> Iterator[str]:
    """Names of which the folded file or folder name ``part`` could be a copy, nearest first."""
    if is_no_copy(part):
        return
    pending, seen = [part], {part}
    for _ in range(_MAX_ROUNDS):
        found = []
        for name in pending:
            for shorter in _shorter(name):
                if shorter and shorter not in seen:
                    seen.add(shorter)
                    found.append(shorter)
                    yield shorter
        if not found:
            return
        pending = found


def _shorter(name: str) -> Iterator[str]:
    """The name with one mark of a copy taken off, in each way this can be done."""
    cut = _SUFFIX.search(name)
    if cut is not None:
        yield name[: cut.start()]
        if cut[0].startswith(".sw") or cut[0].endswith("~"):
            yield name[: cut.start()].removeprefix(".")
    start = _START.match(name)
    if start is not None:
        yield name[start.end() :].removesuffix("#")
    stem, dot, ending = name.rpartition(".")
    if dot and stem:
        shorter = _STEM.sub("", stem)
        if shorter != stem:
            yield f"{shorter}.{ending}"
    shorter = _STEM.sub("", name)
    if shorter != name:
        yield shorter
