"""Which members may leave, told by two lists of patterns: the shipped ones and a project's own.

``send = include and not deny``.  A project's file has lists of its own, says how far the shipped
ones apply as well, and may bound what comes back.  This module judges names; what can't be sent
whatever its name (links, encrypted members) is the plan's to know.
"""

from __future__ import annotations

import functools
import os
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from socketpool.archive.limits import DEFAULT_LIMITS, Limits
from socketpool.archive.names import every_reading, is_certain, readings, show
from socketpool.archive.rules import InvalidPattern, RuleSet
from socketpool.config.values import MAX_SIZE, parse_size
from socketpool.errors import ConfigError

PROJECT_FILE: Final = ".socketpool.yml"
PROJECT_FILES: Final = (PROJECT_FILE, ".socketpool.yaml")
SHIPPED: Final = "the shipped policy"
NOT_INCLUDED: Final = "not included"
UNDECIDED: Final = "encoding of the name unknown, and deny has names beyond ASCII"

_LISTS = ("include", "deny")
_KEYS = (*_LISTS, "defaults", "limits")
_WIDE = "wide"
"""A list that the shipped file has alone, and the word by which a project's file asks for it."""
_LIMITS = {
    "members": "members",
    "member": "member_bytes",
    "total": "total_bytes",
    "ratio": "ratio",
}
"""What a file calls a limit, and what :class:`~socketpool.archive.limits.Limits` does."""
_DEFAULTS = ("all", "deny", "none", "wide")
_MAX_BYTES = 1 << 20
# The shipped file is read on every run; libyaml does it in a tenth of the time.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Decision(NamedTuple):
    """What is done with a name, and the rule that says so."""

    send: bool
    rule: str


class Policy:
    """Judges raw member names against an include and a deny list."""

    def __init__(
        self,
        include: tuple[str, ...],
        deny: tuple[str, ...],
        limits: Limits = DEFAULT_LIMITS,
        source: str = "",
    ) -> None:
        """``limits`` bind what comes back; ``source`` says whose policy it is, for people.

        Raises :class:`~socketpool.archive.rules.InvalidPattern`.
        """
        self.limits = limits
        self.source = source
        self.include = RuleSet(include)
        self.deny = RuleSet(deny, copies=True)
        self._sent = {each: Decision(True, f"include: {each}") for each in include}  # noqa: FBT003
        self._denies_beyond_ascii = not all(map(str.isascii, deny))
        self._silent = Decision(send=False, rule=NOT_INCLUDED)

    def decide(self, name: bytes, other: bytes = b"", *, known: bool = False) -> Decision:
        """Whether the member with this raw name may leave.

        A name that programs read in different ways leaves only if it may in every reading, and
        the name of a copy only if that of the original may.  ``other`` is a second name that the
        archive gives the member; ``known`` says that one of them is certain to be Unicode.
        """
        texts = readings(name)
        if other:
            texts = (*texts, *readings(other))
        for text in texts:
            denied = self.deny.match(text)
            if denied is not None:
                return _kept(denied)
        for text in texts:
            included = self.include.match(text)
            if included is None:
                return self._silent
        for text in texts:
            denied = self.deny.match_copy(text)
            if denied is not None:
                return _kept(denied)
        if not (known or name.isascii()):
            decision = self._decide_uncertain(name, utf8=is_certain(name))
            if decision is not None:
                return decision
        return self._sent[included] if included else self._silent

    def _decide_uncertain(self, name: bytes, *, utf8: bool) -> Decision | None:
        """Whether a name stays because of what it could be in some code page."""
        for text in every_reading(name, single_byte=self._denies_beyond_ascii):
            denied = self.deny.match(text) or self.deny.match_copy(text)
            if denied is not None:
                return _kept(denied)
        if self._denies_beyond_ascii and not utf8:
            return Decision(send=False, rule=UNDECIDED)
        return None


def _kept(pattern: str) -> Decision:
    return Decision(send=False, rule=f"deny: {pattern}")


class _Lists(NamedTuple):
    include: tuple[str, ...]
    deny: tuple[str, ...]
    wide: tuple[str, ...]
    defaults: str
    limits: Limits


def default_policy() -> Policy:
    """The policy shipped with the package."""
    shipped = _shipped()
    return Policy(shipped.include, shipped.deny, source=SHIPPED)


def load_policy(path: Path) -> Policy:
    """The policy of a file; the shipped lists add to it as far as its ``defaults`` says.

    Without that, the shipped deny list always does, the shipped include list only when the file
    has none.

    Raises :class:`~socketpool.errors.ConfigError` naming file, line and what is allowed.
    """
    try:
        with path.open("rb") as stream:
            source = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"The policy file {path} can't be read: {error.strerror}.",
            hint="Check the path given with --policy.",
        ) from error
    if len(source) > _MAX_BYTES:
        raise ConfigError(f"The policy file {path} is larger than {_MAX_BYTES:,} bytes.")
    lists = _parse(source, str(path))
    include, deny = lists.include, lists.deny
    if lists.defaults != "none":
        shipped = _shipped()
        deny = (*deny, *shipped.deny)
        if lists.defaults in ("all", _WIDE):
            include = (*include, *shipped.include)
        if lists.defaults == _WIDE:
            include = (*include, *shipped.wide)
    return Policy(include, deny, lists.limits, f"the policy {path}")


def find_policy(source: Path, explicit: Path | None = None) -> Policy:
    """The policy for an archive: the given file, else the project's beside it, else the shipped.

    For a directory, the project's file may also lie within it.  Raises ConfigError for a file that
    can't be used, and when it isn't clear which one counts.
    """
    if explicit is not None:
        return load_policy(explicit)
    place = _project_file(source)
    if source.is_symlink():
        beside_target = _project_file(Path(os.path.realpath(source)))
        if _content(place) != _content(beside_target):
            raise ConfigError(
                f"{source} is a link, and the policy beside it ({place or SHIPPED}) is another one"
                f" than that beside the file it leads to ({beside_target or SHIPPED})",
                hint="which one is meant? name it with --policy FILE",
            )
    return default_policy() if place is None else load_policy(place)


def _project_file(source: Path) -> Path | None:
    """The project's policy file for an archive or directory, if there is one."""
    for folder in (source, source.parent) if source.is_dir() else (source.parent,):
        found = [place for name in PROJECT_FILES if os.path.lexists(place := folder / name)]
        if len(found) > 1:
            raise ConfigError(
                f"there are two policies: {found[0]} and {found[1]}",
                hint="remove one of them, or name the one that counts with --policy FILE",
            )
        if found:
            if not found[0].exists():
                raise ConfigError(
                    f"the policy {found[0]} is a link that leads nowhere",
                    hint="correct the link or remove it; nothing was sent",
                )
            return found[0]
    return None


def _content(place: Path | None) -> bytes | None:
    try:
        return None if place is None else place.read_bytes()
    except OSError as error:
        raise ConfigError(f"the policy file {place} can't be read: {error.strerror}") from error


@functools.cache
def _shipped() -> _Lists:
    """The lists that come with the package; ``{a,b}`` in a pattern stands for each of a and b.

    They are checked by tests, not on every run.
    """
    source = resources.files(__package__).joinpath("policy.yml").read_bytes()
    root = {key.value: value.value for key, value in _compose(source).value}
    words = {key.value: value.value for key, value in root["endings"]}
    lists = {
        key: tuple(
            dict.fromkeys(each for item in root[key] for each in _alternatives(item.value, words))
        )
        for key in (*_LISTS, _WIDE)
    }
    return _Lists(lists["include"], lists["deny"], lists[_WIDE], "all", DEFAULT_LIMITS)


def _compose(source: bytes) -> Any:
    return yaml.compose(source, Loader=_Loader)


def _alternatives(pattern: str, words: dict[str, str]) -> list[str]:
    start, end = pattern.find("{"), pattern.find("}")
    if start < 0:
        return [pattern]
    before, choices, after = pattern[:start], pattern[start + 1 : end], pattern[end + 1 :]
    return [
        each
        for choice in words.get(choices, choices).split(",")
        for each in _alternatives(before + choice + after, words)
    ]


def _parse(source: bytes, name: str) -> _Lists:
    try:
        root = _compose(source)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it is not text in UTF-8"
        raise ConfigError(
            f"{where}: not valid YAML: {problem}.",
            hint='Patterns need quotes: "*.html", because YAML gives * a meaning of its own.',
        ) from error
    lists: dict[str, tuple[str, ...]] = {}
    defaults = ""
    limits = DEFAULT_LIMITS
    seen = set()
    for key, value in _mapping(root, name):
        if key.value in seen:
            raise _refuse(name, key, f"the key {key.value!r} appears twice")
        seen.add(key.value)
        if key.value in _LISTS:
            lists[key.value] = tuple(_patterns(value, name, key.value))
        elif key.value == "limits":
            limits = _limits(value, name)
        elif key.value == "defaults":
            defaults = value.value if isinstance(value, yaml.ScalarNode) else ""
            if defaults not in _DEFAULTS:
                raise _refuse(name, value, f'"defaults" is one of {", ".join(_DEFAULTS)}')
        else:
            raise _refuse(
                name, key, f"the key {key.value!r} is unknown; allowed are {', '.join(_KEYS)}"
            )
    if not defaults:
        # Who says what may leave means just that; who only says what may not means the rest.
        defaults = "deny" if "include" in lists else "all"
    return _Lists(lists.get("include", ()), lists.get("deny", ()), (), defaults, limits)


def _mapping(root: yaml.Node | None, name: str) -> list[tuple[yaml.Node, yaml.Node]]:
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise _refuse(name, root, f"a policy is made of the keys {', '.join(_KEYS)}")
    return list(root.value)


def _limits(node: yaml.Node, name: str) -> Limits:
    allowed = ", ".join(_LIMITS)
    if not isinstance(node, yaml.MappingNode):
        raise _refuse(name, node, f'"limits" has the keys {allowed}')
    values = {}
    for key, value in node.value:
        if key.value not in _LIMITS:
            raise _refuse(name, key, f"the limit {key.value!r} is unknown; allowed are {allowed}")
        values[_LIMITS[key.value]] = _limit(value, name, key.value)
    return DEFAULT_LIMITS._replace(**values)


def _limit(node: yaml.Node, name: str, key: str) -> int:
    try:
        limit = parse_size(node.value)
    except ValueError:
        limit = 0
    if not 0 < limit <= MAX_SIZE:
        raise _refuse(name, node, f'the limit "{key}" is a number such as 500 or 2G')
    return limit


def _patterns(node: yaml.Node, name: str, key: str) -> list[str]:
    if not isinstance(node, yaml.SequenceNode):
        raise _refuse(name, node, f'"{key}" is a list of patterns such as "*.html"')
    patterns = []
    for item in node.value:
        if not isinstance(item, yaml.ScalarNode) or item.tag.endswith(":null"):
            raise _refuse(name, item, f'"{key}" is a list of patterns such as "*.html"')
        pattern = item.value
        try:
            check_pattern(pattern)
        except InvalidPattern as error:
            shown = show(pattern.encode(errors="surrogatepass"))
            raise _refuse(name, item, f'"{key}" has the pattern {shown}: {error}') from None
        patterns.append(pattern)
    return patterns


def check_pattern(pattern: str) -> None:
    """Raise :class:`InvalidPattern` for a pattern that means nothing, or not what it seems."""
    if not pattern.strip():
        raise InvalidPattern("it is empty")
    if pattern.startswith("!"):
        raise InvalidPattern(
            'rules that begin with "!" are refused, because the order of rules would then decide'
            " what leaves; list what may leave under include and what may not under deny"
        )
    if pattern.startswith("#"):
        raise InvalidPattern("it begins with # and would be taken for a comment; write \\#")
    try:
        RuleSet((pattern,))
    except InvalidPattern:
        raise
    except ValueError as error:
        raise InvalidPattern(f"it is not a gitignore pattern ({error})") from error


def _refuse(name: str, node: yaml.Node, problem: str) -> ConfigError:
    line = node.start_mark.line + 1
    return ConfigError(f"{name}, line {line}: {problem}.", hint="Correct the line and try again.")
