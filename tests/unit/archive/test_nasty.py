"""A table of archives, each named for its trap, and what the engine must do with it.

``kept``: nothing can be sent or changed, but an untouched merge keeps it; ``merged``: a member
behind or beside the trap is replaced and everything else stays; a type: that refusal.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from socketpool.archive import refusals as e
from socketpool.archive.reader import Archive
from tests.support.archives import TIMES, UNIX_FIFO, UNIX_LINK, Built, Spec, build, canonical

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.archive.engine import Engine

PAGE = Spec(b"page.html", b"<p>old</p>" * 20)
TAIL = Spec(b"tail.html", b"<p>tail</p>" * 20)
FULL_END = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)


def around(*specs: Spec, **options: Any) -> bytes:
    """The trap between a member that will be replaced and one that stays behind it."""
    return build([PAGE, *specs, TAIL], **options).data


def patched(built: Built, at: int, value: bytes) -> bytes:
    """Overwrite bytes, counted from the directory."""
    data = bytearray(built.data)
    at += built.directory
    data[at : at + len(value)] = value
    return bytes(data)


def end_of(data: bytes) -> int:
    return data.rindex(b"PK\5\6")


def edited_end(data: bytes, at: int, value: bytes) -> bytes:
    end = end_of(data)
    return data[: end + at] + value + data[end + at + len(value) :]


def edited_zip64_end(data: bytes, at: int, value: bytes) -> bytes:
    end = data.rindex(b"PK\6\6")
    return data[: end + at] + value + data[end + at + len(value) :]


def disk_beyond_any_file() -> bytes:
    """A ZIP64 end record on a second disk, with an offset that no system call can take."""
    data = edited_zip64_end(around(zip64_end=True), 16, b"\1")
    return edited_end(edited_zip64_end(data, 48, b"\xff" * 8), 4, b"\xff\xff")


def two_archives_in_the_comment() -> bytes:
    inner = build([Spec(b"inner", b"x")]).data
    return around(comment=inner)


def fake_end_whose_comment_reaches_the_end() -> bytes:
    """A whole archive in the comment, with offsets that fit and an end that ends at the end."""
    outer = around(comment=bytes(200))
    start = len(outer) - 200
    inner = build([Spec(b"i", b"x")]).data
    return outer[:start] + inner + bytes(200 - len(inner))


def longer_local_extra() -> bytes:
    data = bytearray(build([PAGE, TAIL]).data)
    data[28:30] = b"\x10\0"
    return bytes(data)


MERGED: dict[str, Callable[[], bytes]] = {
    "comment with an end record's signature": lambda: around(comment=b"PK\5\6 is in here" * 3),
    "comment full of signatures": lambda: around(comment=b"PK\5\6" * 5),
    "comment of the greatest length": lambda: around(comment=b"c" * 65535),
    "member's comment with a record's signature": lambda: around(Spec(b"x", comment=b"PK\1\2" * 9)),
    "prefix that offsets don't count": lambda: around(prefix=b"MZ" * 500),
    "prefix that offsets count": lambda: around(prefix=b"MZ" * 500, counted_prefix=True),
    "prefix that is an archive": lambda: around(prefix=build([Spec(b"in", b"x")]).data),
    "stored member that is an archive": lambda: around(
        Spec(b"inner.zip", build([Spec(b"in", b"x")]).data, method=0)
    ),
    "stored archive as the last member": lambda: (
        build([PAGE, Spec(b"inner.zip", build([Spec(b"in", b"x")]).data, method=0)]).data
    ),
    "zeros behind the end": lambda: around(trailing=bytes(512)),
    "newline behind the end": lambda: around(trailing=b"\r\n"),
    "ZIP64 end records": lambda: around(zip64_end=True),
    "ZIP64 end records beside true narrow values": lambda: around(zip64_end=True, narrow_too=True),
    "ZIP64 end with an extensible part": lambda: around(zip64_end=True, zip64_extra=b"x" * 50),
    "ZIP64 end with an extensible part behind a prefix": lambda: around(
        zip64_end=True, zip64_extra=b"x" * 50, prefix=b"MZ" * 99
    ),
    "ZIP64 end behind a prefix": lambda: around(zip64_end=True, prefix=b"MZ" * 99),
    "ZIP64 member": lambda: around(Spec(b"w", b"wide" * 9, zip64=True)),
    "replaced member is ZIP64": lambda: (
        build(
            [Spec(b"page.html", b"old", zip64=True, local_extra=TIMES, central_extra=TIMES), TAIL]
        ).data
    ),
    "ZIP64 field that nothing refers to": lambda: (
        build(
            [Spec(b"page.html", b"old", central_extra=struct.pack("<2H2Q", 1, 16, 3, 5)), TAIL]
        ).data
    ),
    "gap before the directory": lambda: around(before_directory=b"deleted" * 30),
    "gap between members": lambda: around(Spec(b"g", b"x", gap=b"PK\3\4 deleted")),
    "gap behind the directory": lambda: around(end_gap=b"gap" * 7),
    "extra field cut short": lambda: around(Spec(b"x", b"x", local_extra=b"\x55\x54\x20\0a")),
    "extra field of padding": lambda: around(Spec(b"x", b"x", local_extra=bytes(3))),
    "directory in another order": lambda: (
        build([PAGE, Spec(b"x", b"x"), TAIL], central_order=[2, 0, 1]).data
    ),
    "descriptor with signature, 32 bit": lambda: around(Spec(b"x", b"x", descriptor="sig32")),
    "descriptor without signature, 32 bit": lambda: around(Spec(b"x", b"x", descriptor="bare32")),
    "descriptor with signature, 64 bit": lambda: around(Spec(b"x", b"x", descriptor="sig64")),
    "descriptor without signature, 64 bit": lambda: around(Spec(b"x", b"x", descriptor="bare64")),
    "replaced member has a descriptor without signature": lambda: (
        build([Spec(b"page.html", b"old", descriptor="bare32"), TAIL]).data
    ),
    "replaced member has a wide descriptor": lambda: (
        build([Spec(b"page.html", b"old", descriptor="sig64"), TAIL]).data
    ),
    "empty replaced member with a descriptor": lambda: (
        build([Spec(b"page.html", b"", method=0, descriptor="bare32"), TAIL]).data
    ),
    "descriptor before a gap": lambda: (
        build([Spec(b"page.html", b"old", descriptor="sig32"), Spec(b"t", b"x", gap=bytes(8))]).data
    ),
    "empty name": lambda: around(Spec(b"", b"x")),
    "name that is not UTF-8": lambda: around(Spec(b"\xff\xfe\x80.html", b"x", flags=0x800)),
    "name that climbs": lambda: around(Spec(b"../../etc/passwd.html", b"x")),
    "absolute name": lambda: around(Spec(b"/etc/passwd.html", b"x")),
    "name with a zero byte": lambda: around(Spec(b"a\0b.html", b"x")),
    "names that differ in case": lambda: around(Spec(b"Page.html", b"x"), Spec(b"PAGE.HTML", b"y")),
    "name twice": lambda: around(Spec(b"twice.html", b"x"), Spec(b"twice.html", b"y")),
    "folder and file of one name": lambda: around(Spec(b"page.html/", b"")),
    "symbolic link": lambda: around(Spec(b"link.html", b"/etc/passwd", external=UNIX_LINK)),
    "named pipe": lambda: around(Spec(b"pipe.html", b"", external=UNIX_FIFO)),
    "ZipCrypto": lambda: around(Spec(b"c.html", b"x", flags=1, raw=b"c" * 20)),
    "ZipCrypto with descriptor": lambda: around(
        Spec(b"c.html", b"x", flags=1, raw=b"c" * 20, descriptor="sig32")
    ),
    "local name differs elsewhere": lambda: around(
        Spec(b"link", b"x", local_name=b"KNIL", external=UNIX_LINK)
    ),
    "lying member elsewhere": lambda: around(Spec(b"link", b"x", local_crc=1, external=UNIX_LINK)),
    **{
        f"method {number}": partial(
            around, Spec(b"m.html", b"x" * 50, method=number, raw=b"?" * 30)
        )
        for number in (9, 12, 14, 93, 98, 99)
    },
    "70,001 members": lambda: (
        build([PAGE, *(Spec(b"%d" % at, method=0) for at in range(70_000))], zip64_end=True).data
    ),
    "65,535 members without ZIP64": lambda: (
        build([PAGE, *(Spec(b"%d" % at, method=0) for at in range(65_534))]).data
    ),
}

REFUSED: dict[str, tuple[type[Exception], Callable[[], bytes]]] = {
    "nothing": (e.NotAnArchive, lambda: b""),
    "text": (e.NotAnArchive, lambda: b"hello" * 99),
    "signature only": (e.NotAnArchive, lambda: b"PK\5\6"),
    "comment cut short": (e.NotAnArchive, lambda: around(comment=b"c" * 50)[:-10]),
    "end cut off": (e.NotAnArchive, lambda: around()[:-22]),
    "an archive in the comment": (e.AmbiguousArchive, two_archives_in_the_comment),
    "an archive and zeros in the comment": (
        e.AmbiguousArchive,
        fake_end_whose_comment_reaches_the_end,
    ),
    "an empty archive in the comment": (e.AmbiguousArchive, lambda: around(comment=FULL_END)),
    "an empty archive behind the end": (e.AmbiguousArchive, lambda: around(trailing=FULL_END)),
    "ZIP64 and narrow end differ": (
        e.AmbiguousArchive,
        lambda: edited_end(around(zip64_end=True, narrow_too=True), 8, b"\3\0\3\0"),
    ),
    "first of several disks beyond any file": (e.UnsupportedArchive, disk_beyond_any_file),
    "first of several disks": (e.UnsupportedArchive, lambda: edited_end(around(), 4, b"\1\0")),
    "member on another disk": (e.UnsupportedArchive, lambda: around(Spec(b"x", disk=1))),
    "count too small": (e.DamagedArchive, lambda: edited_end(around(), 8, b"\1\0\1\0")),
    "count too large": (e.NotAnArchive, lambda: edited_end(around(), 8, b"\xff\0\xff\0")),
    "count one too large": (
        e.DamagedArchive,
        lambda: edited_end(
            build([Spec(b"page.html", b"x", comment=b"c" * 60)]).data, 8, b"\2\0\2\0"
        ),
    ),
    "shared local header": (
        e.OverlappingMembers,
        lambda: build([PAGE, Spec(b"shared", b"x", offset=0)]).data,
    ),
    "local header inside another's data": (
        e.OverlappingMembers,
        lambda: build([PAGE, Spec(b"x", b"y", offset=35)]).data,
    ),
    "data that runs into the directory": (
        e.OverlappingMembers,
        lambda: patched(build([PAGE]), 20, struct.pack("<L", 9_999)),
    ),
    "offset behind the end": (e.DamagedArchive, lambda: around(Spec(b"x", b"y", offset=1 << 30))),
    "ZIP64 values that are missing": (
        e.DamagedArchive,
        lambda: patched(build([PAGE]), 24, b"\xff\xff\xff\xff"),
    ),
    "local name differs": (
        e.NameMismatch,
        lambda: build([Spec(b"page.html", b"x", local_name=b"evil.html")]).data,
    ),
    "local name is longer": (
        e.NameMismatch,
        lambda: build([Spec(b"page.html", b"x", local_name=b"page.html2")]).data,
    ),
    "local CRC differs": (
        e.LyingMember,
        lambda: build([Spec(b"page.html", b"x", local_crc=7)]).data,
    ),
    "local size differs": (
        e.LyingMember,
        lambda: build([Spec(b"page.html", b"x", local_size=7)]).data,
    ),
    "stored with two sizes": (
        e.LyingMember,
        lambda: build([Spec(b"page.html", b"xy", method=0, size=1)]).data,
    ),
    "no local header": (e.DamagedArchive, lambda: build([PAGE]).data.replace(b"PK\3\4", b"XXXX")),
    "local extra field reaches into the next member": (
        e.OverlappingMembers,
        longer_local_extra,
    ),
}


@pytest.mark.parametrize("trap", MERGED)
def test_merged(trap: str, engine: Engine) -> None:
    data = MERGED[trap]()
    sent, manifest = engine.implode(data)
    assert engine.merge_with(data, sent, manifest) == data
    longer = b"<p>a longer page than before</p>" * 9
    merged = engine.merge_with(data, {b"page.html": longer}, manifest)
    assert merged != data
    assert engine.report is not None
    assert [change.name for change in engine.report.changed] == [b"page.html"]
    before, after = _around_page(data, engine.folder), _around_page(merged, engine.folder)
    assert after[0] == before[0]
    assert after[1].endswith(before[1])
    # The result is an archive like any other: it can be sent and changed again.
    _, manifest = engine.implode(merged, verify=True)
    again = engine.merge_with(merged, {b"page.html": b"<p>short</p>"}, manifest)
    last = _around_page(again, engine.folder)
    assert (last[0], len(last[2])) == (before[0], len(before[2]))
    assert last[1].endswith(before[1])


def _around_page(data: bytes, folder: Path) -> tuple[bytes, bytes, list[bytes]]:
    """What lies before the page, what lies between it and the directory, and all names."""
    path = folder / "look.zip"
    path.write_bytes(data)
    with Archive.open(path) as archive:
        page = next(member for member in archive if member.name == b"page.html")
        begin = archive.next_offset(page)
        rest = data[begin : archive.ending.directory]
        names = [member.name for member in archive]
    path.unlink()
    return data[: page.offset], rest, names


@pytest.mark.parametrize("trap", REFUSED)
def test_refused(trap: str, engine: Engine) -> None:
    kind, make = REFUSED[trap]
    with pytest.raises(kind) as caught:
        engine.implode(make())
    assert caught.value.exit_code == 6  # type: ignore[attr-defined]
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("trap", "kind"),
    [
        (Spec(b"page.html", b"new", crc=1), e.LyingMember),
        (Spec(b"page.html", b"new", size=4), e.LyingMember),
        (Spec(b"page.html", b"new", size=2), e.LyingMember),
        (Spec(b"page.html", b"new", method=0, size=9), e.LyingMember),
        (Spec(b"page.html", b"new", raw=b"\xff\xff\xff"), e.LyingMember),
        (Spec(b"page.html", b"new", local_name=b"tail.html"), e.NameMismatch),
        (Spec(b"page.html", b"new", flags=1), e.UnsupportedArchive),
        (Spec(b"page.html", b"new", method=12), e.UnsupportedArchive),
        (Spec(b"Page.html", b"new"), e.NeverSent),
        (Spec(b"page.htm", b"new"), e.NeverSent),
        (Spec(b"link.html", b"new"), e.NeverSent),
        (Spec(b"new.html", b"new"), e.NeverSent),
        (Spec(b"folder/", b""), e.NeverSent),
        (Spec(b"page.html", bytes(5_000_000)), e.CompressionBomb),
        (Spec(b"page.html", b"x", raw=b"\3\0garbage behind the end"), e.LyingMember),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refused_when_returned(trap: Spec, kind: type[Exception], engine: Engine) -> None:
    link = Spec(b"link.html", b"target", external=UNIX_LINK)
    with pytest.raises(kind):
        engine.merge(around(link), build([trap]).data)


def test_refused_when_returned_twice(engine: Engine) -> None:
    twice = build([Spec(b"page.html", b"a"), Spec(b"page.html", b"b")]).data
    with pytest.raises(e.ReturnedTwice):
        engine.merge(around(), twice)


def test_folders_that_zip_programs_add_are_no_members(engine: Engine) -> None:
    data = build([Spec(b"a/b/page.html", b"old"), TAIL]).data
    returned = build([Spec(b"a/"), Spec(b"a/b/"), Spec(b"a/b/page.html", b"new")]).data
    engine.merge(data, returned)
    assert engine.report is not None
    assert len(engine.report.changed) == 1


def test_order_of_what_comes_back_does_not_matter(engine: Engine) -> None:
    data = build([Spec(b"%d.html" % at, b"old") for at in range(9)]).data
    merged = engine.merge(data, {b"%d.html" % at: b"new" for at in (8, 3, 5, 0)})
    sent, _ = engine.implode(merged)
    assert sent.count(b"new") == 0  # deflated
    assert canonical({}) == FULL_END
    assert engine.report is not None
    assert {change.name for change in engine.report.changed} == {
        b"8.html",
        b"3.html",
        b"5.html",
        b"0.html",
    }
