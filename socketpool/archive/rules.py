"""A set of gitignore patterns that answers fast which of them matches a name.

pathspec gives the patterns their meaning; this module only arranges its regular expressions.  A
pattern without a slash can match any part of a path on its own, so parts are tested one by one and
folders' answers are remembered; ``name`` and ``*.ext`` need no regular expression at all, and one
such as ``*secret*.json`` is only tried on names that end so.  A property test holds the answers
equal to pathspec's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern

from socketpool.archive.names import fold

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANYWHERE = "^(?:.+/)?"
_LITERAL = re.compile(r"[a-z0-9_.@~+-]+")
_SUFFIX = re.compile(r"\*(\.[a-z0-9_]+)")
_ENDS_WITH = re.compile(r"[^\\\[\]/]*(\.[a-z0-9_]+)")
_REMEMBERED = 20_000


class InvalidPattern(ValueError):
    """The pattern has no meaning, or one that would surprise; the text says which."""


class RuleSet:
    """Positive patterns; of those that match, one of the simplest kind is told."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._literals: dict[str, str] = {}
        self._suffixes: dict[str, str] = {}
        anywhere: list[tuple[str, str, str]] = []
        paths: list[tuple[str, str]] = []
        for pattern in self.patterns:
            folded = fold(pattern)
            suffix = _SUFFIX.fullmatch(folded)
            if suffix:
                self._suffixes.setdefault(suffix[1], pattern)
            elif _LITERAL.fullmatch(folded):
                self._literals.setdefault(folded, pattern)
            else:
                expression = _expression(folded)
                if expression.startswith(_ANYWHERE) and "/" not in folded.rstrip("/"):
                    ending = _ENDS_WITH.fullmatch(folded)
                    part = expression[len(_ANYWHERE) :]
                    anywhere.append((pattern, part, ending[1] if ending else ""))
                else:
                    paths.append((pattern, expression))
        self._paths = _Alternatives(paths)
        self._parts = {
            ending: _Alternatives([(a, b) for a, b, end in anywhere if end in ("", ending)])
            for ending in {"", *(end for _, _, end in anywhere)}
        }
        self._any_part = self._parts[""]
        self._folders: dict[str, str | None] = {"": None}

    def match(self, name: str) -> str | None:
        """The pattern that matches the folded path ``name``, as its author wrote it."""
        folder, _, last = name.rpartition("/")
        try:
            found = self._folders[folder]
        except KeyError:
            found = self._match_folder(folder)
        return found or self._match_part(last) or self._paths.match(name)

    def _match_folder(self, folder: str) -> str | None:
        above, _, last = folder.rpartition("/")
        found = self._folders.get(above)
        if found is None and above:
            found = self._match_folder(above)
        # A pattern that ends with a slash matches folders alone.
        found = found or self._match_part(last) or self._any_part.match(last + "/")
        if len(self._folders) < _REMEMBERED:
            self._folders[folder] = found
        return found

    def _match_part(self, part: str) -> str | None:
        found = self._literals.get(part)
        if found is not None:
            return found
        ending = part[part.rfind(".") :] if "." in part else ""
        found = self._suffixes.get(ending)
        if found is not None:
            return found
        return self._parts.get(ending, self._any_part).match(part)


class _Alternatives:
    """Several expressions as one; the number of the group tells which of them matched."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._patterns = tuple(pattern for pattern, _ in pairs)
        joined = "|".join(f"({expression})" for _, expression in pairs)
        self._match = re.compile(joined).match if pairs else None

    def match(self, text: str) -> str | None:
        if self._match is None:
            return None
        found = self._match(text)
        if found is None or found.lastindex is None:
            return None
        return self._patterns[found.lastindex - 1]


def _expression(pattern: str) -> str:
    """pathspec's regular expression, without groups of its own."""
    compiled = GitIgnoreBasicPattern(pattern)
    if compiled.regex is None or not compiled.include:
        raise InvalidPattern("it matches nothing")
    expression = re.sub(r"\(\?P<\w+>", "(?:", compiled.regex.pattern)
    if re.compile(expression).groups:
        raise InvalidPattern("it can't be combined with others")
    return expression
