"""What a server accepts, unpacks and sends back."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socketpool.archive import refusals as e
from socketpool.archive.extract import extract_member, open_incoming
from socketpool.archive.limits import Limits
from socketpool.archive.writer import Entry, write_archive
from tests.support.archives import TIMES, Spec, build, canonical

if TYPE_CHECKING:
    from pathlib import Path


class Plain(TypedDict):
    date: int
    made: int
    external: int


PLAIN = Plain(date=0x00210000, made=20, external=0)


def unpacked(path: Path, limits: Limits = Limits()) -> dict[bytes, bytes]:  # noqa: B008
    found = {}
    with open_incoming(path, limits) as archive:
        for member in archive:
            out = io.BytesIO()
            extract_member(archive, member, out, limits)
            found[member.name] = out.getvalue()
    return found


def test_what_is_sent_back_is_what_arrives(tmp_path: Path) -> None:
    contents = {b"a.html": b"x" * 100_000, b"\xff\xfe.js": b"", "ü.css".encode(): bytes(range(256))}
    entries = []
    for number, (name, content) in enumerate(contents.items()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        entries.append(Entry(name, name == "ü.css".encode(), path))
    target = tmp_path / "out.zip"
    assert write_archive(target, entries) == target.stat().st_size
    assert unpacked(target) == contents
    with zipfile.ZipFile(target) as opened:
        assert opened.testzip() is None
        assert opened.namelist()[2] == "ü.css"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    for source in (tmp_path / "none", link, tmp_path):
        with pytest.raises(e.SourceUnreadable):
            write_archive(tmp_path / "out.zip", [Entry(b"a", False, source)])
        assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("spec", "options", "kind"),
    [
        (Spec(b"a", b"x", **PLAIN), {"prefix": b"MZ"}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN), {"comment": b"c"}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN), {"trailing": b"c"}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN), {"before_directory": b"c"}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, gap=b"c"), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, comment=b"c"), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, central_extra=TIMES * 4), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, local_extra=TIMES), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, descriptor="sig32"), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, flags=1), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", external=0o120777 << 16), {}, e.ForbiddenShape),
        (Spec(b"../a", b"x", **PLAIN), {}, e.ForbiddenShape),
        (Spec(b"/a", b"x", **PLAIN), {}, e.ForbiddenShape),
        (Spec(b"a/", b"", **PLAIN), {}, e.ForbiddenShape),
        (Spec(b"a\0", b"x", **PLAIN), {}, e.ForbiddenShape),
        (Spec(b"", b"x", **PLAIN), {}, e.ForbiddenShape),
        (Spec(b"a", b"x", **PLAIN, method=12), {}, e.UnsupportedArchive),
        (Spec(b"a", b"x", **PLAIN, local_name=b"b"), {}, e.NameMismatch),
        (Spec(b"a", b"x", **PLAIN, crc=5), {}, e.LyingMember),
        (Spec(b"a", b"xyz", **PLAIN, size=2), {}, e.LyingMember),
        (Spec(b"a", b"x" * 2_000, **PLAIN, method=0), {}, e.LimitExceeded),
        (Spec(b"n" * 65, b"x", **PLAIN), {}, e.LimitExceeded),
        (Spec(b"a", bytes(900), **PLAIN), {}, e.CompressionBomb),
    ],
)
def test_hostile_archives_are_refused(
    spec: Spec, options: dict[str, bytes], kind: type[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "in.zip"
    path.write_bytes(build([spec], **options).data)  # type: ignore[arg-type]
    limits = Limits(name_bytes=64, member_bytes=1_000, ratio=50, ratio_floor=100)
    with pytest.raises(kind):
        unpacked(path, limits)


def test_counts_and_totals_are_limited(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    path.write_bytes(canonical({b"%d" % at: b"x" * 100 for at in range(10)}))
    assert len(unpacked(path)) == 10
    for limits in (Limits(members=9), Limits(total_bytes=999), Limits(directory_bytes=99)):
        with pytest.raises(e.LimitExceeded):
            open_incoming(path, limits)
    path.write_bytes(build([Spec(b"a", b"x", **PLAIN), Spec(b"a", b"y", **PLAIN)]).data)
    with pytest.raises(e.ForbiddenShape, match="same name"):
        open_incoming(path)


def test_no_more_is_unpacked_than_promised(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    path.write_bytes(build([Spec(b"a", bytes(50_000_000), **PLAIN, size=10)]).data)
    out = io.BytesIO()
    with open_incoming(path) as archive, pytest.raises(e.LyingMember):
        extract_member(archive, archive.member(0), out, archive.limits)
    assert len(out.getvalue()) == 0


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(rb"[^/\\.:\x00-\x20\x7f][^/\\.:\x00-\x1f\x7f]{0,20}", fullmatch=True),
        st.binary(max_size=200),
        max_size=6,
    )
)
def test_any_name_survives_the_journey(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[bytes, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("journey")
    entries = []
    for number, (name, content) in enumerate(contents.items()):
        path = folder / str(number)
        path.write_bytes(content)
        entries.append(Entry(name, False, path))
    write_archive(folder / "out.zip", entries)
    assert unpacked(folder / "out.zip") == contents


def test_imports_stay_cheap() -> None:
    modules = "reader merge commit implode limits writer extract inflate"
    code = "import sys\n" + "".join(
        f"import socketpool.archive.{name}\n" for name in modules.split()
    )
    code += "print(*sys.modules)"
    command = [sys.executable, "-c", code]
    env = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    heavy = {"yaml", "pathspec", "pydantic", "rich", "click", "dataclasses", "json", "hashlib"}
    assert heavy & set(done.stdout.split()) == set()
