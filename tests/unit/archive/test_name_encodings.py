"""Names in other encodings than UTF-8: what any program could call a member counts."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.plan import make_plan
from socketpool.archive.policy import UNDECIDED, Policy
from socketpool.archive.sources import ZipSource
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from pathlib import Path

UTF8 = 0x800


def unicode_path(name: bytes, other: str, *, crc: int | None = None) -> bytes:
    """The extra field in which Windows programs put the Unicode form of a name."""
    body = struct.pack("<BL", 1, zlib.crc32(name) if crc is None else crc) + other.encode()
    return struct.pack("<2H", 0x7075, len(body)) + body


def rule_of(tmp_path: Path, policy: Policy, spec: Spec) -> tuple[bool, str]:
    path = tmp_path / "names.zip"
    path.write_bytes(build([spec]).data)
    with ZipSource(path) as source:
        (planned,) = make_plan(source, policy)
    return planned.send, planned.rule


@pytest.mark.parametrize("raw", ["Договоры/счёт.html".encode("cp866"), b"plain.html"])
@pytest.mark.parametrize("crc", [None, 0])
def test_the_unicode_path_is_one_more_name(tmp_path: Path, raw: bytes, crc: int | None) -> None:
    extra = unicode_path(raw, "Договоры/счёт.html", crc=crc)
    spec = Spec(raw, b"x", central_extra=extra)
    assert rule_of(tmp_path, Policy(("*",), ("Договоры/",)), spec) == (False, "deny: Договоры/")
    assert rule_of(tmp_path, Policy(("*.html",), ("*.key",)), spec)[0]


def test_a_unicode_path_can_neither_let_out_nor_climb(tmp_path: Path) -> None:
    policy = Policy(("*.html",), ("*.key",))
    for other in ("server.key", "picture.png", "../a.html", "a\x1b.html"):
        spec = Spec(b"a.html", b"x", central_extra=unicode_path(b"a.html", other))
        assert not rule_of(tmp_path, policy, spec)[0], other
    spec = Spec(b"server.key", b"x", central_extra=unicode_path(b"server.key", "a.html"))
    assert not rule_of(tmp_path, policy, spec)[0]


@pytest.mark.parametrize(
    ("encoding", "folder"),
    [
        ("cp866", "Договоры"), ("cp1251", "Договоры"), ("koi8_r", "Договоры"),
        ("mac_cyrillic", "Договоры"), ("cp855", "договоры"), ("cp1252", "Verträge"),
        ("cp850", "Verträge"), ("cp437", "Verträge"), ("mac_roman", "Verträge"),
        ("latin_1", "Verträge"), ("cp852", "Umówy"), ("cp1250", "Umówy"), ("cp1253", "Συμβάσεις"),
        ("cp737", "Συμβάσεις"), ("cp1254", "Sözleşme"), ("cp857", "Sözleşme"), ("cp862", "חוזים"),
        ("cp1255", "חוזים"), ("cp1256", "عقود"), ("cp720", "عقود"), ("cp932", "契約"),
        ("euc_jp", "契約"), ("gbk", "合同"), ("gb18030", "合同"), ("big5", "合約"),
        ("cp949", "계약"),
        ("cp874", "สัญญา"), ("cp1258", "Đô"), ("iso8859_2", "Umówy"), ("iso8859_5", "Договоры"),
    ],
)  # fmt: skip
def test_a_denied_name_stays_in_every_encoding(tmp_path: Path, encoding: str, folder: str) -> None:
    name = f"{folder}/a.html".encode(encoding)
    policy = Policy(("*.html",), (f"{folder}/",))
    for flags in (0, UTF8):
        send, rule = rule_of(tmp_path, policy, Spec(name, b"x", flags=flags))
        assert (send, rule.startswith("deny: ")) == (False, True)
    assert not policy.decide(f"{folder}/a.html".encode()).send


def test_a_character_that_hides_ascii_hides_nothing(tmp_path: Path) -> None:
    """The second byte of some characters is a letter or a backslash in ASCII."""
    name = "表.key".encode("cp932")
    assert b"\\" in name
    assert not rule_of(tmp_path, Policy(("*",), ("*.key",)), Spec(name, b"x"))[0]
    name = "ソ.html".encode("cp932")
    assert not rule_of(tmp_path, Policy(("*",), ("ソ.html",)), Spec(name, b"x"))[0]


def test_a_name_that_can_not_be_decided_stays_where_deny_is_not_ascii(tmp_path: Path) -> None:
    policy = Policy(("*.html",), ("秘密/",))
    name = "страница.html".encode("cp866")
    assert rule_of(tmp_path, policy, Spec(name, b"x")) == (False, UNDECIDED)
    assert rule_of(tmp_path, Policy(("*.html",), ("secret/",)), Spec(name, b"x"))[0]
    known = Spec(name, b"x", central_extra=unicode_path(name, "страница.html"))
    assert rule_of(tmp_path, policy, known)[0]
    lying = Spec(name, b"x", central_extra=unicode_path(name, "страница.html", crc=5))
    assert rule_of(tmp_path, policy, lying) == (False, UNDECIDED)
    assert rule_of(tmp_path, policy, Spec("страница.html".encode(), b"x"))[0]
    assert rule_of(tmp_path, policy, Spec("страница.html".encode(), b"x", flags=UTF8))[0]
    assert rule_of(tmp_path, policy, Spec(b"page.html", b"x"))[0]
