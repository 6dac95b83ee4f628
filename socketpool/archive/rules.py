"""A set of gitignore patterns that answers fast which of them matches a name.

pathspec gives the patterns their meaning; this module only arranges its regular expressions.  A
pattern without a slash can match any part of a path on its own, so parts are tested one by one and
folders' answers are remembered.  Most patterns need no regular expression at all (``name``,
``*.ext``, ``*end``, ``**/folder/name``), and the others are only tried on names with their ending
or first character.  A property test holds the answers equal to pathspec's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern

from socketpool.archive.copies import is_no_copy, originals
from socketpool.archive.names import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANYWHERE = "^(?:.+/)?"
_LITERAL = re.compile(r"[a-z0-9_.@~+-]+")
_SUFFIX = re.compile(r"\*(\.[a-z0-9_]+)")
_END = re.compile(r"\*([a-z0-9_.@~+-]+)")
_PATH = re.compile(r"\*\*/((?:[a-z0-9_.@~+-]+/)+)([a-z0-9_.@~+-]+)")
_ENDS_WITH = re.compile(r"[^\\\[\]/]*(\.[a-z0-9_]+)")
_FIRST = re.compile(r"[a-z0-9_.@~+-]")
_GLOB = re.compile(r"(?=.*[^*])(?:[a-z0-9_.@~+-]|\*(?!\*))+")
_REMEMBERED = 20_000


class InvalidPattern(ValueError):
    """The pattern has no meaning, or one that would surprise; the text says which."""


class _Pattern(NamedTuple):
    """A pattern that one part of a path can match on its own."""

    pair: tuple[str, str]
    """The pattern and its regular expression."""
    ending: str
    """With which a part must end, dot included; empty for any."""
    first: str
    """The character a part must begin with; empty for any."""
    pieces: tuple[str, ...]
    """Texts a part must hold; empty if unknown."""


class RuleSet:
    """Positive patterns; of those that match, one of the simplest kind is told."""

    def __init__(self, patterns: Iterable[str], *, copies: bool = False) -> None:
        """With ``copies`` a folder's name matches as well when it is a copy of one that does."""
        self.patterns = tuple(patterns)
        self._copies = copies
        self._literals: dict[str, str] = {}
        self._suffixes: dict[str, str] = {}
        self._ends: dict[str, str] = {}
        self._tails: dict[str, list[tuple[str, str]]] = {}
        anywhere: list[_Pattern] = []
        paths: list[tuple[str, str]] = []
        for pattern in self.patterns:
            folded = fold(pattern)
            if _LITERAL.fullmatch(folded):
                self._literals.setdefault(folded, pattern)
            elif suffix := _SUFFIX.fullmatch(folded):
                self._suffixes.setdefault(suffix[1], pattern)
            elif end := _END.fullmatch(folded):
                self._ends.setdefault(end[1], pattern)
            elif path := _PATH.fullmatch(folded):
                self._tails.setdefault(path[2], []).append((path[1] + path[2], pattern))
            else:
                simple = _GLOB.fullmatch(folded) is not None
                expression = _glob_expression(folded) if simple else _expression(folded)
                if expression.startswith(_ANYWHERE) and "/" not in folded.rstrip("/"):
                    ending = _ENDS_WITH.fullmatch(folded)
                    first = _FIRST.match(folded)
                    anywhere.append(
                        _Pattern(
                            (pattern, expression[len(_ANYWHERE) :]),
                            ending[1] if ending else "",
                            first[0] if first else "",
                            tuple(folded.split("*")) if simple else (),
                        )
                    )
                else:
                    paths.append((pattern, expression))
        self._paths = _Alternatives(paths)
        self._parts = _Parts(anywhere)
        self._endings = tuple(self._ends)
        self._folders: dict[str, str | None] = {"": None}

    def match(self, name: str) -> str | None:
        """The pattern that matches the folded path ``name``, as its author wrote it."""
        folder, _, last = name.rpartition("/")
        try:
            found = self._folders[folder]
        except KeyError:
            found = self._match_folder(folder)
        return found or self._match_last(folder, last) or self._paths.match(name)

    def match_copy(self, name: str) -> str | None:
        """The pattern that matches what the file ``name`` is a copy of."""
        folder, _, last = name.rpartition("/")
        if is_no_copy(last):
            return None
        for original in originals(last):
            found = self._match_last(folder, original)
            if found is None and self._paths:
                found = self._paths.match(f"{folder}/{original}" if folder else original)
            if found is not None:
                return found
        return None

    def _match_folder(self, folder: str) -> str | None:
        above, _, last = folder.rpartition("/")
        found = self._folders.get(above)
        if found is None and above:
            found = self._match_folder(above)
        # A pattern that ends with a slash matches folders alone.
        found = found or self._match_last(above, last) or self._parts.match(last + "/")
        if found is None and self._copies:
            for original in originals(last):
                found = found or self._match_last(above, original)
                found = found or self._parts.match(original + "/")
        if len(self._folders) < _REMEMBERED:
            self._folders[folder] = found
        return found

    def _match_last(self, folder: str, last: str) -> str | None:
        found = self._literals.get(last)
        if found is not None:
            return found
        tails = self._tails.get(last)
        if tails is not None:
            path = f"/{folder}/{last}"
            for tail, pattern in tails:
                if path.endswith("/" + tail):
                    return pattern
        if "." in last:
            found = self._suffixes.get(last[last.rfind(".") :])
            if found is not None:
                return found
        if self._endings and last.endswith(self._endings):
            return next(self._ends[each] for each in self._endings if last.endswith(each))
        return self._parts.match(last)


class _Parts:
    """Patterns for one part of a path, by the ending and first character they ask for."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        self._by: dict[str, _Ending] = {}
        for ending in {"", *(each.ending for each in patterns)}:
            fitting = [each for each in patterns if each.ending in ("", ending)]
            if fitting:
                self._by[ending] = _Ending(fitting)
        self._any = self._by.get("")

    def match(self, part: str) -> str | None:
        at = part.rfind(".")
        fitting = self._by.get(part[at:], self._any) if at >= 0 else self._any
        return None if fitting is None else fitting.match(part)


class _Ending:
    """The patterns for parts with one ending."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        wild = [each for each in patterns if not each.first]
        self._wild = _Alternatives([each.pair for each in wild])
        self._firsts = {
            first: _Alternatives([each.pair for each in patterns if each.first == first])
            for first in {each.first for each in patterns} - {""}
        }
        # Text without any of the pieces that the patterns ask for needs no closer look.
        pieces = [max(each.pieces, key=len, default="") for each in wild]
        guard = "|".join(map(re.escape, sorted(set(pieces)))) if all(pieces) else ""
        self._guard = re.compile(guard).search if wild else None

    def match(self, part: str) -> str | None:
        fitting = self._firsts.get(part[:1])
        found = fitting.match(part) if fitting is not None else None
        if found is None and self._guard is not None and self._guard(part) is not None:
            found = self._wild.match(part)
        return found


class _Alternatives:
    """Several expressions as one, compiled when first needed; the group's number tells which."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs
        self._expression: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def match(self, text: str) -> str | None:
        if not self._pairs:
            return None
        if self._expression is None:
            joined = "|".join(f"({expression})" for _, expression in self._pairs)
            self._expression = re.compile(joined)
        found = self._expression.match(text)
        if found is None or found.lastindex is None:
            return None
        return self._pairs[found.lastindex - 1][0]


def _glob_expression(pattern: str) -> str:
    """The same as :func:`_expression` says, for patterns with no other sign than ``*``."""
    pieces = [re.escape(piece) for piece in pattern.split("*")]
    return f"{_ANYWHERE}{'[^/]*'.join(pieces)}(?:/|$)"


def _expression(pattern: str) -> str:
    """pathspec's regular expression, without groups of its own."""
    compiled = GitIgnoreBasicPattern(pattern)
    if compiled.regex is None or not compiled.include:
        raise InvalidPattern("it matches nothing")
    expression = re.sub(r"\(\?P<\w+>", "(?:", compiled.regex.pattern)
    if re.compile(expression).groups:
        raise InvalidPattern("it can't be combined with others")
    return expression
