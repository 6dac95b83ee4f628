"""A canary in every place of an archive that must not leave, and none in what does."""

from __future__ import annotations

import secrets
import struct
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.policy import default_policy
from tests.support.archives import UNIX_LINK, Spec, build

if TYPE_CHECKING:
    from tests.unit.archive.engine import Engine

SENT = b"<p>this may leave</p>"
# Stored, so that a leak shows; small, so that it would travel in the same buffer as what leaves.
STORED = {"method": 0}


class Cage:
    """Hands out canaries and remembers them by the place they sit in."""

    def __init__(self) -> None:
        self.birds: dict[str, bytes] = {}

    def __call__(self, place: str) -> bytes:
        return self.birds.setdefault(place, secrets.token_hex(8).encode())


def extra(body: bytes) -> bytes:
    return struct.pack("<2H", 0xCAFE, len(body)) + body


def full_of_canaries(bird: Cage) -> bytes:
    kept = Spec(
        bird("kept name") + b".png",
        bird("kept data"),
        method=0,
        comment=bird("kept comment"),
        local_extra=extra(bird("kept local extra")),
        central_extra=extra(bird("kept central extra")),
    )
    sent = Spec(
        b"index.html",
        SENT,
        method=0,
        comment=bird("sent comment"),
        local_extra=extra(bird("sent local extra")),
        central_extra=extra(bird("sent central extra")),
        date=int.from_bytes(bird("sent date")[:4], "little"),
        external=int.from_bytes(bird("sent attributes")[:2], "little"),
        gap=bird("gap before sent"),
    )
    return build(
        [
            kept,
            sent,
            Spec(b"after.html", SENT, gap=b"PK\3\4" + bird("deleted entry")),
            Spec(b"link.html", bird("link target"), method=0, external=UNIX_LINK),
            Spec(bird("denied name") + b".key", bird("denied data"), method=0),
            Spec(b".env", bird("environment"), method=0),
            Spec(b"x/.git/" + bird("folder") + b".html", bird("repository"), method=0),
            Spec(b"twice.html", bird("first twin"), method=0),
            Spec(b"twice.html", bird("second twin"), method=0),
            Spec(b"../" + bird("climbing name") + b".html", bird("climbing data"), method=0),
            Spec(b"c.html", b"", flags=1, raw=bird("ciphertext")),
            Spec(b"d.html", SENT, descriptor="sig32"),
            Spec(b"e.html", SENT, gap=bird("behind a descriptor")),
            Spec(bird("folder entry") + b"/"),
        ],
        prefix=bird("prefix"),
        comment=bird("archive comment"),
        trailing=bird("stray bytes"),
        before_directory=bird("before the directory"),
        zip64_end=True,
        zip64_extra=bird("zip64 extensible part"),
    ).data


def test_no_canary_leaves(engine: Engine) -> None:
    bird = Cage()
    sent, manifest = engine.implode(full_of_canaries(bird), default_policy(), verify=True)
    assert [each.name for each in manifest] == [
        b"index.html",
        b"after.html",
        b"d.html",
        b"e.html",
    ]
    assert len(bird.birds) > 25
    escaped = [place for place, canary in bird.birds.items() if canary in sent]
    assert escaped == []
    for part in ("sent date", "sent attributes"):
        assert bird.birds[part][:4] not in sent
    assert SENT in sent


def test_large_members_neighbours_do_not_leave(engine: Engine) -> None:
    bird = Cage()
    large = secrets.token_bytes(200_000)
    data = build(
        [
            Spec(b"a.png", bird("before") * 20_000, method=0),
            Spec(b"large.html", large, method=0),
            Spec(b"b.png", bird("behind") * 20_000, method=0),
        ]
    ).data
    sent, _ = engine.implode(data, default_policy())
    assert large in sent
    assert [place for place, canary in bird.birds.items() if canary in sent] == []


def test_what_hides_behind_packed_data_is_found(engine: Engine) -> None:
    from socketpool.archive.refusals import LyingMember

    honest = build([Spec(b"a.html", SENT)])
    begin, end = honest.extents[0]
    packed = honest.data[begin + 36 : end]
    data = build([Spec(b"a.html", SENT, raw=packed + b"canary")]).data
    with pytest.raises(LyingMember):
        engine.implode(data, verify=True)
