"""Damaged archives are merged correctly or refused: no other exception, no hang, no flood."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from socketpool.archive.extract import extract_member, open_incoming
from socketpool.archive.limits import Limits
from socketpool.archive.manifest import Manifest
from socketpool.archive.merge import merge
from socketpool.archive.reader import Archive
from socketpool.errors import ArchiveError
from tests.support.archives import TIMES, Spec, build, canonical
from tests.unit.archive.engine import Engine

SEEDS = [
    build([Spec(b"a.html", b"old" * 9), Spec(b"b.png", b"x" * 9, method=0)], comment=b"c").data,
    build(
        [
            Spec(b"a.html", b"old" * 9, descriptor="sig64", zip64=True, local_extra=TIMES),
            Spec(b"b.html", b"y", gap=b"gap", central_extra=TIMES),
        ],
        prefix=b"prefix",
        zip64_end=True,
        zip64_extra=b"zz",
    ).data,
    canonical({b"a.html": b"new" * 30, b"b.html": b""}),
]
LIMITS = Limits(members=1_000, member_bytes=1 << 20, total_bytes=1 << 22, directory_bytes=1 << 20)
LOTS = settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    interesting = st.sampled_from(
        [b"\0", b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"PK\5\6", b"PK\1\2", b"\1\0", b"\x80"]
    )
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        value = draw(st.one_of(interesting, st.binary(min_size=1, max_size=8)))
        how = draw(st.sampled_from(["over", "over", "over", "insert", "delete", "cut", "twice"]))
        if how == "over":
            data[at : at + len(value)] = value
        elif how == "insert":
            data[at:at] = value
        elif how == "delete":
            del data[at : at + len(value)]
        elif how == "cut":
            del data[at:]
        else:
            data += data[at:]
    return bytes(data)


@LOTS
@given(mutations())
def test_a_mutated_original(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        try:
            sent, manifest = engine.implode(data)
        except ArchiveError:
            return
        assert engine.merge_with(data, sent, manifest) == data
        try:
            merged = engine.merge_with(data, {b"a.html": b"brand new"}, manifest)
        except ArchiveError:
            return
        engine.implode(merged)
        assert (
            sum(a == b for a, b in zip(data, merged, strict=False)) >= merged.find(b"a.html") - 31
        )


@LOTS
@given(mutations())
def test_a_mutated_return(returned: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        _, manifest = engine.implode(SEEDS[0])
        engine.returned.write_bytes(returned)
        try:
            merge(engine.original, engine.returned, manifest, limits=LIMITS)
        except ArchiveError:
            assert engine.original.read_bytes() == SEEDS[0]
            assert len(list(Path(folder).iterdir())) == 2
        else:
            with Archive.open(engine.original) as archive:
                assert [member.name for member in archive] == [b"a.html", b"b.png"]


@LOTS
@given(mutations())
def test_a_mutated_arrival(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.zip"
        path.write_bytes(data)
        try:
            with open_incoming(path, LIMITS) as archive, (Path(folder) / "out").open("wb") as out:
                for member in archive:
                    extract_member(archive, member, out, LIMITS)
        except ArchiveError:
            pass


@LOTS
@given(st.binary(max_size=300))
def test_noise(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise"
        path.write_bytes(data)
        with contextlib.suppress(ArchiveError):
            Archive.open(path, LIMITS).close()


@LOTS
@given(st.data())
def test_a_mutated_manifest(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        _, manifest = engine.implode(SEEDS[0])
        text = manifest.to_json()
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text('0123456789,[]{}"a\n-', max_size=4)) + text[at + 1 :]
        with contextlib.suppress(ArchiveError):
            engine.merge_with(SEEDS[0], {b"a.html": b"new"}, Manifest.from_json(text))
