"""What holds for every archive, with every feature in every combination."""

from __future__ import annotations

import io
import subprocess
import tempfile
import zipfile
from functools import partial
from operator import ne
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.archives import (
    TIMES,
    UNIX_FILE,
    UNIX_LINK,
    Built,
    Spec,
    build,
    canonical,
    take_apart,
)
from tests.unit.archive.engine import Engine

FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

names = st.one_of(
    st.from_regex(rb"[a-z]{1,5}(/[a-z]{1,4})?\.(html|css|js|png)", fullmatch=True),
    st.sampled_from(
        [b"\xff\xfe.html", "äöü.html".encode(), b"A.html", b"a.html", b"dir/", b".key"]
    ),
)
contents = st.one_of(
    st.binary(max_size=40),
    st.binary(min_size=1, max_size=8).map(lambda data: data * 9_000),
    st.just(b"PK\5\6" + bytes(18)),
)
extras = st.sampled_from([b"", TIMES, b"\xfe\xca\0\0", TIMES + b"\x99\x77\3\0abc", b"\0\0\0"])


@st.composite
def members(draw: st.DrawFn) -> Spec:
    spec = Spec(
        name=draw(names),
        data=draw(contents),
        method=draw(st.sampled_from([0, 8, 8])),
        flags=draw(st.sampled_from([0, 0x800, 2, 0x806])),
        external=draw(st.sampled_from([0, UNIX_FILE, 0x20, UNIX_LINK])),
        local_extra=draw(extras),
        central_extra=draw(extras.filter(lambda extra: extra != b"\0\0\0")),
        comment=draw(st.sampled_from([b"", b"note", b"PK\1\2"])),
        descriptor=draw(st.sampled_from(["", "", "sig32", "sig64", "bare32", "bare64"])),
        zip64=draw(st.sampled_from([False, False, True])),
        gap=draw(st.sampled_from([b"", b"", b"junk", b"PK\3\4" + bytes(40)])),
    )
    if not spec.data and spec.descriptor:
        # All zeros: where such a descriptor ends before a gap can't be told, nor does it matter.
        spec = Spec(**{**vars(spec), "descriptor": "sig32"})
    odd = draw(st.sampled_from(["", "", "", "encrypted", "method"]))
    if odd == "encrypted":
        spec = Spec(**{**vars(spec), "flags": spec.flags | 1, "raw": b"cipher" * 4})
    elif odd == "method":
        spec = Spec(**{**vars(spec), "method": 93, "raw": b"other"})
    return spec


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[Spec], Built, int]:
    specs = draw(st.lists(members(), min_size=1, max_size=8))
    prefix = draw(st.sampled_from([b"", b"", b"#!/bin/sh\n", b"PK\3\4" * 9]))
    counted = draw(st.booleans())
    order = draw(st.one_of(st.none(), st.permutations(range(len(specs)))))
    built = build(
        specs,
        prefix=prefix,
        counted_prefix=counted,
        comment=draw(st.sampled_from([b"", b"hello", b"PK\5\6" + b"\1" * 30, b"PK\6\7"])),
        trailing=draw(st.sampled_from([b"", b"", b"\0\0\0", b"\n"])),
        zip64_end=draw(st.sampled_from([False, False, True])),
        zip64_extra=draw(st.sampled_from([b"", b"\1\2\3\4\5\6"])),
        narrow_too=draw(st.booleans()),
        before_directory=draw(st.sampled_from([b"", b"", b"padding"])),
        central_order=order,
    )
    if order is not None:
        specs = [specs[index] for index in order]
        built.extents = [built.extents[index] for index in order]
    return specs, built, 0 if counted else len(prefix)


def test_the_builder_makes_what_zipfile_reads() -> None:
    specs = [Spec(b"a.html", b"hello", descriptor="sig32"), Spec(b"b", b"x" * 99, zip64=True)]
    with zipfile.ZipFile(io.BytesIO(build(specs, zip64_end=True).data)) as opened:
        assert opened.testzip() is None


@FEW
@given(archives())
def test_returning_what_was_sent_changes_nothing(case: tuple[list[Spec], Built, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        data = case[1].data
        sent, manifest = engine.implode(data, verify=True)
        assert engine.merge_with(data, sent, manifest) == data
        assert engine.report is not None
        assert not engine.report.written
        copy = Path(folder) / "copy.zip"
        engine.merge_with(data, sent, manifest, output=copy)
        assert copy.read_bytes() == data


@FEW
@given(archives())
def test_what_leaves_is_exactly_the_sendable_members(case: tuple[list[Spec], Built, int]) -> None:
    specs, built, _ = case
    with tempfile.TemporaryDirectory() as folder:
        sent, _ = Engine(Path(folder)).implode(built.data)
    with zipfile.ZipFile(io.BytesIO(sent)) as opened:
        assert opened.testzip() is None
        got = [opened.read(info) for info in opened.infolist()]
        assert all(not (info.extra or info.comment) for info in opened.infolist())
    assert got == [spec.data for spec in specs if _sendable(spec, specs)]


@FEW
@given(archives(), st.data())
def test_replacing_members_changes_only_those(
    case: tuple[list[Spec], Built, int], data: st.DataObject
) -> None:
    specs, built, base = case
    sendable = [index for index, spec in enumerate(specs) if _sendable(spec, specs)]
    chosen = data.draw(st.sets(st.sampled_from(sendable))) if sendable else set()
    fresh = {
        specs[index].name: data.draw(contents.filter(partial(ne, specs[index].data)))
        for index in sorted(chosen)
    }
    method = data.draw(st.sampled_from([0, 8]))
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        merged = engine.merge(built.data, canonical(fresh, method=method))
    _check_spliced(built, merged, specs, base, {i: fresh[specs[i].name] for i in chosen})


def _sendable(spec: Spec, specs: list[Spec]) -> bool:
    alone = sum(other.name == spec.name for other in specs) == 1
    plain = spec.method in (0, 8) and not spec.flags & 1 and spec.external != UNIX_LINK
    return alone and plain and not spec.name.endswith(b"/")


def _check_spliced(
    built: Built, merged: bytes, specs: list[Spec], base: int, fresh: dict[int, bytes]
) -> None:
    """Everything outside the replaced members' extents is there, in order, and nothing more."""
    before = take_apart(built.data, built.directory, len(specs), base)
    grown = len(merged) - len(built.data)
    old_at = new_at = 0
    position = {}
    for index in sorted(fresh, key=lambda each: built.extents[each]):
        start, end = built.extents[index]
        assert merged[new_at : new_at + start - old_at] == built.data[old_at:start]
        new_at += start - old_at
        position[index] = new_at
        packed = int.from_bytes(merged[new_at + 18 : new_at + 22], "little")
        if packed == 0xFFFFFFFF:
            packed = _wide_packed(merged, new_at)
        name, extra = (int.from_bytes(merged[new_at + at :][:2], "little") for at in (26, 28))
        new_at += 30 + name + extra + packed
        old_at = end
    rest = built.directory - old_at
    assert merged[new_at : new_at + rest] == built.data[old_at : built.directory]
    directory = new_at + rest
    after = take_apart(merged, directory, len(specs), base)
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        assert now.record == was.record
        if index in fresh:
            assert now.offset == position[index]
            assert now.content(merged) == fresh[index]
            assert now.flags == was.flags & ~0xE
        else:
            assert (now.flags, now.method, now.crc) == (was.flags, was.method, was.crc)
            length = built.extents[index][1] - built.extents[index][0]
            assert (
                merged[now.offset : now.offset + length]
                == (built.data[was.offset : was.offset + length])
            )
    end = built.data.index(b"PK\5\6", built.directory + 46)
    assert merged[-(len(built.data) - end) :][:12] == built.data[end : end + 12]
    assert len(merged) == len(built.data) + grown


def _wide_packed(archive: bytes, at: int) -> int:
    name, extra = (int.from_bytes(archive[at + each :][:2], "little") for each in (26, 28))
    field = archive[at + 30 + name : at + 30 + name + extra]
    place = field.index(b"\1\0\x10\0")
    return int.from_bytes(field[place + 12 : place + 20], "little")


@pytest.mark.parametrize("seed", range(12))
def test_zipfile_and_unzip_agree_before_and_after(seed: int, tmp_path: Path) -> None:
    specs = [
        Spec(
            b"page%d.html" % number,
            b"<p>%d</p>" % number * 50,
            method=(0, 8)[(seed + number) % 2],
            descriptor=("", "sig32", "")[(seed + number) % 3],
            zip64=(seed >> 1) % 2 == 1 and number % 2 == 0 and (seed + number) % 3 != 1,
            local_extra=(b"", TIMES)[number % 2],
            central_extra=(b"", TIMES)[number % 2],
        )
        for number in range(6)
    ]
    data = build(specs, comment=b"a comment", zip64_end=seed % 4 == 3).data
    engine = Engine(tmp_path)
    engine.original.write_bytes(data)
    assert _unzip_agrees(engine.original)
    merged = engine.merge(data, {b"page2.html": b"new", b"page3.html": b"newer" * 999})
    assert _unzip_agrees(engine.original)
    with zipfile.ZipFile(io.BytesIO(merged)) as opened:
        assert opened.testzip() is None
        assert opened.read("page2.html") == b"new"
        assert opened.comment == b"a comment"


def _unzip_agrees(path: Path) -> bool:
    try:
        done = subprocess.run(["unzip", "-tq", path], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("Info-ZIP's unzip is not installed")
    return done.returncode == 0
