"""Archives as real programs write them, in ways that other readers take without a word."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.limits import Limits
from socketpool.archive.policy import Policy
from socketpool.archive.reader import Archive
from socketpool.archive.refusals import DamagedArchive, LimitExceeded, NameMismatch
from socketpool.archive.sources import ZipSource
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from tests.unit.archive.engine import Engine

PAGE = Spec(b"page.html", b"<p>old</p>" * 20)
TAIL = Spec(b"tail.html", b"<p>tail</p>" * 20)


def flagged(data: bytes, signature: bytes, at: int, *, on: bool) -> bytes:
    """The flag for a descriptor set or cleared in all headers of one kind."""
    changed = bytearray(data)
    place = -1
    while (place := data.find(signature, place + 1)) >= 0:
        flags = changed[place + at]
        changed[place + at] = flags | 8 if on else flags & ~8
    return bytes(changed)


def stale(data: bytes, *, sizes: bool) -> bytes:
    """Descriptors with a checksum of zero, and sizes of zero as well unless they are true."""
    changed = bytearray(data)
    place = -1
    while (place := data.find(b"PK\7\x08", place + 1)) >= 0:
        changed[place + 4 : place + (8 if sizes else 16)] = bytes(4 if sizes else 12)
    return bytes(changed)


def described() -> bytes:
    return build([Spec(each.name, each.data, descriptor="sig32") for each in (PAGE, TAIL)]).data


PRODUCERS = {
    # adm-zip saving again, zipalign: the flag is there, a descriptor isn't
    "flag without a descriptor": lambda: flagged(
        flagged(build([PAGE, TAIL]).data, b"PK\3\4", 6, on=True), b"PK\1\2", 8, on=True
    ),
    "descriptor with a checksum of zero": lambda: stale(described(), sizes=True),
    "descriptor of zeros": lambda: stale(described(), sizes=False),
    # yazl 1.1, camlzip
    "flag in the local header alone": lambda: flagged(described(), b"PK\1\2", 8, on=False),
    "flag in the directory alone": lambda: flagged(build([PAGE, TAIL]).data, b"PK\1\2", 8, on=True),
}


@pytest.mark.parametrize("kind", PRODUCERS)
def test_descriptors_as_programs_write_them(kind: str, engine: Engine) -> None:
    data = PRODUCERS[kind]()
    sent, manifest = engine.implode(data, verify=True)
    assert engine.merge_with(data, sent, manifest) == data
    new = b"<p>new</p>" * 30
    merged = engine.merge_with(data, {b"page.html": new, b"tail.html": b"x"}, manifest)
    with zipfile.ZipFile(engine.original) as opened:
        assert opened.testzip() is None
        assert (opened.read("page.html"), opened.read("tail.html")) == (new, b"x")
    _, manifest = engine.implode(merged, verify=True)
    assert engine.merge_with(merged, {b"page.html": PAGE.data}, manifest) != merged


@pytest.mark.parametrize("above", [b"/", b"./", b"././", b"//", b"/./"])
def test_names_are_sent_as_they_are_extracted(above: bytes, engine: Engine) -> None:
    """wp2static, archiver and Hugo exporters write /name, bsdtar and CMake ./name."""
    data = build([Spec(above + b"a b/page.html", b"old" * 30), TAIL, Spec(above + b".env")]).data
    sent, manifest = engine.implode(data, Policy(("*",), (".env",)))
    assert [each.name for each in manifest] == [above + b"a b/page.html", b"tail.html"]
    with zipfile.ZipFile(io.BytesIO(sent)) as opened:
        assert opened.namelist() == ["a b/page.html", "tail.html"]
    assert engine.merge_with(data, sent, manifest) == data
    merged = engine.merge_with(data, {b"a b/page.html": b"new"}, manifest)
    with ZipSource(engine.original) as source:
        assert source.archive.name(0) == above + b"a b/page.html"
        local = source.archive.local(source.archive.member(0))
        assert local.name == above + b"a b/page.html"
    assert merged != data


def test_a_pattern_at_the_root_means_the_root_of_such_names(engine: Engine) -> None:
    policy = Policy(("*",), ("/drafts/",))
    for name in (b"/drafts/a.html", b"./drafts/a.html", b"drafts/a.html"):
        assert not policy.decide(name).send, name
    assert policy.decide(b"/a/drafts/a.html").send
    assert not engine.plan(build([Spec(b"/../a.html", b"x"), TAIL]).data).sent.count(0)


@pytest.mark.parametrize(
    ("local", "central"), [(b"d/a.html", b"d\\a.html"), (b"d\\a.html", b"d/a.html")]
)
def test_names_that_differ_in_the_separator_are_the_same(
    local: bytes, central: bytes, engine: Engine
) -> None:
    data = build([Spec(central, b"old" * 30, local_name=local), TAIL]).data
    sent, manifest = engine.implode(data)
    assert engine.merge_with(data, sent, manifest) == data
    engine.merge_with(data, {central: b"new"}, manifest)
    with ZipSource(engine.original) as source:
        assert source.archive.name(0) == central
        assert source.archive.local(source.archive.member(0)).name == local


def test_more_members_than_the_end_record_can_count(engine: Engine) -> None:
    """Finder writes the count modulo 65,536 and no ZIP64 record."""
    total = 70_001
    data = build([Spec(b"%d.html" % at, b"", method=0) for at in range(total)]).data
    _, manifest = engine.implode(data)
    assert len(manifest) == total
    merged = engine.merge_with(data, {b"69999.html": b"new"}, manifest)
    with ZipSource(engine.original) as source:
        assert len(source.archive) == total
    assert merged[-14:-10] == data[-14:-10]
    with pytest.raises(LimitExceeded):
        Archive.open(engine.original, Limits(members=70_000))
    cut = data[:-14] + struct.pack("<2H", 5, 5) + data[-10:]
    engine.original.write_bytes(cut)
    with pytest.raises(DamagedArchive):
        Archive.open(engine.original)


def test_a_member_with_two_names_stays_and_the_rest_works(engine: Engine) -> None:
    data = build([PAGE, Spec(b"one.html", b"x" * 90, local_name=b"two.html"), TAIL]).data
    plan = engine.plan(data)
    assert list(plan.sent) == [0, 2]
    assert ("another name beside its data", False, 1, 90) in [tuple(t) for t in plan.totals()]
    _, manifest = engine.implode(data)
    before = data.index(b"PK\3\4", 10)
    merged = engine.merge_with(data, {b"page.html": b"new"}, manifest)
    assert data[before : before + 60] in merged
    with pytest.raises(NameMismatch):
        engine.plan(build([Spec(b"one.html", b"x", local_name=b"two.html")]).data)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ü.html".encode(), "ü.html".encode("cp437")),
        ("ü.html".encode(), "u\u0308.html".encode()),
        (b"a.html", b"./a.html"),
        (b"d/a.html", b"d\\a.html"),
        (b"/a.html", b"./a.html"),
    ],
)
def test_two_forms_of_one_name_stay(one: bytes, other: bytes, engine: Engine) -> None:
    plan = engine.plan(build([Spec(one, b"x"), Spec(other, b"y"), TAIL]).data)
    assert list(plan.sent) == [2]
    assert [each.rule for each in plan][:2] == ["name appears twice, in two forms"] * 2
    assert (plan.sent_bytes, plan.kept_members) == (len(TAIL.data), 2)


def test_a_returned_member_still_has_one_name(engine: Engine) -> None:
    data = build([PAGE, TAIL]).data
    returned = build([Spec(b"page.html", b"new", local_name=b"evil.html")]).data
    with pytest.raises(NameMismatch):
        engine.merge(data, returned)
