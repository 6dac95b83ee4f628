"""What may leave: the shipped rules, a project's own, and the hook."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pathspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socketpool.archive.names import fold, is_unsafe, readings
from socketpool.archive.plan import Candidate, make_plan
from socketpool.archive.policy import Policy, default_policy, find_policy, load_policy
from socketpool.archive.refusals import HookFailed
from socketpool.archive.rules import RuleSet
from socketpool.archive.sources import ZipSource
from socketpool.errors import ConfigError
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = default_policy()


@pytest.mark.parametrize(
    "name",
    [
        "index.html",
        "css/Site.CSS",
        "app/Component.VUE",
        "a/b/c.min.js",
    ],
)
def test_web_sources_leave(name: str) -> None:
    assert SHIPPED.decide(name.encode()).send


@pytest.mark.parametrize(
    "name",
    [
        "server.key", "SERVER.KEY", "certs/site.html", ".env", "app/.env.production", "x/.env.js",
        ".git/config.txt", "sub/.git/hooks/a.js", "id_rsa", "id_ed25519.txt", ".ssh/notes.md",
        "my-credentials.json", "client_secret_1.json", "service-account-9.json", "passwords.txt",
        "node_modules/a/index.js", "__MACOSX/._index.html", "logo.png", "font.woff2", "site.zip",
        "Makefile", "server.key.", "server.key ", "a\\.git\\config.txt", "secrets/a.html",
        ".SSH/a.md", "./.git/a.html", "a//.git//x.html", "\u017fecrets/a.html",
        "terraform.tfstate.txt", "data.json", "sitemap.xml", "robots.txt", "README.MD", "app.ts",
    ],
)  # fmt: skip
def test_others_stay(name: str) -> None:
    assert not SHIPPED.decide(name.encode()).send


def test_deny_wins_over_any_include() -> None:
    policy = Policy(("*", "*.key", "keep/server.key"), ("*.key",))
    assert policy.decide(b"keep/server.key") == (False, "deny: *.key")
    assert policy.decide(b"keep/other") == (True, "include: *")


def test_a_name_leaves_only_if_every_reading_may() -> None:
    policy = Policy(("*.html",), ("geheim-ü*",))
    assert not policy.decide("geheim-ü.html".encode()).send
    assert not policy.decide("geheim-ü.html".encode("cp437")).send
    assert not policy.decide("GEHEIM-U\u0308.HTML".encode()).send
    assert policy.decide("offen-ü.html".encode()).send


patterns = st.sampled_from(
    ["*.html", "*.js", ".git", ".git/", "docs/", "docs/*.html", "/top.html", "a/**/b.js", "**/x",
     "id_*", "*secret*.js", "*.tar.gz", "?.html", "[ab].js", "A*", "*", "a/b", "Ä.html", "*.*",
     "*.bak/", "foo.d/", "*.min.*", "**/docs/x", "**/a/b", "**/.git/a.js", "*_x", "*s", "i*x",
     "*t*", "*-secret*", "a*.js", "*.j*"]
)  # fmt: skip
paths = st.lists(
    st.sampled_from(
        ["a", "b", "docs", ".git", "x", "top.html", "a.js", "b.html", "my-secret.js", "id_x",
         "x.tar.gz", "A", "ä.html", "q.bak", "foo.d", "x.min.js", ".html", "html", "secret.js.html"]
    ),
    min_size=1,
    max_size=4,
).map("/".join)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(patterns, max_size=6), st.lists(paths, min_size=1, max_size=4))
def test_rules_mean_what_pathspec_says(rules: list[str], names: list[str]) -> None:
    fast = RuleSet(rules)
    spec = pathspec.PathSpec.from_lines("gitignore", [fold(rule) for rule in rules])
    for name in names:
        folded = fold(name)
        found = fast.match(folded)
        assert (found is not None) == spec.match_file(folded)
        if found is not None:
            only = pathspec.PathSpec.from_lines("gitignore", [fold(found)])
            assert only.match_file(folded)


@given(st.binary(max_size=30))
def test_any_bytes_are_judged(name: bytes) -> None:
    assert readings(name)
    is_unsafe(name)
    SHIPPED.decide(name)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('include: ["!a.html"]', "line 1: \"include\" has the pattern '!a.html': rules that begin"),
        ("include:\n  - *.html", "line 2: not valid YAML"),
        (
            "exclude: []",
            "line 1: the key 'exclude' is unknown; allowed are include, deny, defaults",
        ),
        ("include: '*.html'", 'line 1: "include" is a list'),
        ('deny:\n  - "a"\n  - ""', "line 3"),
        ("deny:\n  - [a]", "line 2"),
        ("deny: [~]", "line 1"),
        ('deny: ["#a"]', "taken for a comment"),
        ("defaults: some", '"defaults" is one of all, deny, none'),
        ("deny: []\ndeny: []", "line 2: the key 'deny' appears twice"),
        ("- a", "line 1: a policy is made of the keys"),
        ("a: b: c", "line 1: not valid YAML"),
        ('include: ["a/**b\\\\"]', "line 1"),
        ("\xff", "not valid YAML"),
    ],
)
def test_mistakes_are_named(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert str(path) in caught.value.message
    assert problem in caught.value.message


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml"):
        load_policy(tmp_path / "none.yml")


def test_a_project_s_include_stands_alone_while_the_shipped_deny_list_stays(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text('include: ["*.svg"]\ndeny: ["Drafts/"]')
    policy = find_policy(tmp_path / "site.zip")
    assert policy.decide(b"a.svg").send
    assert not policy.decide(b"a.html").send, "who says what may leave means just that"
    assert policy.decide(b"drafts/a.html") == (False, "deny: Drafts/")
    assert not policy.decide(b"a.key").send


@pytest.mark.parametrize(
    ("defaults", "html", "key"), [("deny", False, False), ("none", False, True)]
)
def test_a_project_can_replace_the_shipped_rules(
    defaults: str, html: bool, key: bool, tmp_path: Path
) -> None:
    path = tmp_path / "own.yml"
    path.write_text(f'include: ["*.key", "*.svg"]\ndefaults: {defaults}')
    policy = find_policy(tmp_path / "site.zip", path)
    assert policy.decide(b"a.svg").send
    assert policy.decide(b"a.html").send == html
    assert policy.decide(b"a.key").send == key


def plan_of(tmp_path: Path, hook: object) -> list[tuple[bytes, bool, str]]:
    path = tmp_path / "a.zip"
    names = (b"a.html", b"b.html", b"c.key", b"d.png")
    path.write_bytes(build([Spec(name, b"x") for name in names]).data)
    with ZipSource(path) as source:
        plan = make_plan(source, SHIPPED, hook)  # type: ignore[arg-type]
        return [(each.name, each.send, each.rule) for each in plan]


def test_the_hook_can_only_hold_back_more(tmp_path: Path) -> None:
    asked = []

    def hook(member: Candidate) -> bool:
        asked.append(member.name)
        return member.name == "a.html"

    assert plan_of(tmp_path, hook) == [
        (b"a.html", False, "held back by is_implodable"),
        (b"b.html", True, "include: *.html"),
        (b"c.key", False, "deny: *.key"),
        (b"d.png", False, "not included"),
    ]
    assert asked == ["a.html", "b.html"]
    assert [send for _, send, _ in plan_of(tmp_path, lambda _: False)] == [
        True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("hook", [lambda _: 1 / 0, lambda _: None, lambda _: 1])
def test_a_failing_hook_sends_nothing(hook: object, tmp_path: Path) -> None:
    with pytest.raises(HookFailed, match=r"'a\.html'"):
        plan_of(tmp_path, hook)


def test_counts_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(build([Spec(b"a.html", b"x" * 10), Spec(b"b.png", b"y" * 7)]).data)
    with ZipSource(path) as source:
        plan = make_plan(source, SHIPPED)
    assert (len(plan), len(plan.sent), plan.sent_bytes) == (2, 1, 10)
    assert (plan.kept_members, plan.kept_bytes) == (1, 7)
    assert [tuple(total) for total in plan.totals()] == [
        ("include: *.html", True, 1, 10),
        ("not included", False, 1, 7),
    ]


def test_a_project_that_only_denies_keeps_the_shipped_include_list(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text('deny: ["drafts/"]')
    policy = find_policy(tmp_path / "site.zip")
    assert policy.decide(b"a.html").send
    assert not policy.decide(b"drafts/a.html").send
    assert not policy.decide(b"server.key").send


def test_both_shipped_lists_apply_when_the_project_says_so(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text('include: ["*.svg"]\ndefaults: all')
    policy = find_policy(tmp_path / "site.zip")
    assert policy.decide(b"a.svg").send
    assert policy.decide(b"a.html").send


def test_a_project_bounds_what_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".socketpool.yml").write_text("limits: {members: 10, member: 2M, ratio: 50}")
    limits = find_policy(tmp_path / "site.zip").limits
    assert (limits.members, limits.member_bytes, limits.ratio) == (10, 2 << 20, 50)
    assert limits.total_bytes == find_policy(tmp_path / "x" / "site.zip").limits.total_bytes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits: 5", '"limits" has the keys members, member, total, ratio'),
        ("limits: {size: 5}", "the limit 'size' is unknown"),
        ("limits: {member: much}", "a number such as 500 or 2G"),
        ("limits: {member: 0}", "a number such as 500 or 2G"),
        ("limits: {member: 0x10}", "a number such as 500 or 2G"),
        ("limits: {member: 010}", "a number such as 500 or 2G"),
        ("limits: {member: 99999999999999G}", "a number such as 500 or 2G"),
        ("limits: {member: {2G: 1}}", "a number such as 500 or 2G"),
        ("limits: {member: -1}", "a number such as 500 or 2G"),
        ("limits: {member: [1]}", "a number such as 500 or 2G"),
    ],
)
def test_limits_that_mean_nothing_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_policy(path)
