"""Signed archives of every kind are found before anything is sent, and are not changed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from socketpool.archive.refusals import SignedArchive
from socketpool.archive.sources import ZipSource
from tests.support.archives import Spec, build

if TYPE_CHECKING:
    from tests.unit.archive.engine import Engine

PAGE = Spec(b"page.html", b"<p>old</p>" * 20)


def with_member(name: str) -> bytes:
    return build([PAGE, Spec(name.encode(), b"signed")]).data


def android_update() -> bytes:
    comment = b"signed by SignApk\0" + b"\x30" * 100
    length = len(comment) + 6
    return build([PAGE], comment=comment + struct.pack("<3H", 106, 0xFFFF, length)).data


SIGNED = {
    "NuGet": lambda: with_member(".signature.p7s"),
    "VSIX": lambda: with_member("package/services/digital-signature/origin.psdor"),
    "VSIX with its signature alone": lambda: with_member(
        "package/services/digital-signature/xml-signature/x.psdsxs"
    ),
    "VS Code": lambda: with_member(".signature.p7s"),
    "MSIX": lambda: with_member("AppxSignature.p7x"),
    "MSIX bundle": lambda: with_member("AppxMetadata/AppxSignature.p7x"),
    "OpenDocument": lambda: with_member("META-INF/documentsignatures.xml"),
    "OpenDocument macros": lambda: with_member("META-INF/macrosignatures.xml"),
    "office document": lambda: with_member("_xmlsignatures/sig1.xml"),
    "office macros": lambda: with_member("word/vbaProjectSignature.bin"),
    "EPUB": lambda: with_member("META-INF/signatures.xml"),
    "JAR": lambda: with_member("META-INF/CERT.RSA"),
    "Firefox extension": lambda: with_member("META-INF/cose.sig"),
    "pkpass": lambda: with_member("signature"),
    "bundle of passes": lambda: with_member("one.pkpass/signature"),
    "IPA": lambda: with_member("Payload/A.app/_CodeSignature/CodeResources"),
    "IPA with its profile": lambda: with_member("Payload/A.app/embedded.mobileprovision"),
    "macOS program": lambda: with_member("A.app/Contents/_CodeSignature/CodeResources"),
    "W3C widget": lambda: with_member("author-signature.xml"),
    "signed list": lambda: with_member("dist/SHA256SUMS.asc"),
    "Chrome extension": lambda: build([PAGE], prefix=b"Cr24\3\0\0\0\4\0\0\0abcd").data,
    "Chrome extension, counted": lambda: (
        build([PAGE], prefix=b"Cr24\2\0\0\0" + bytes(8), counted_prefix=True).data
    ),
    "Android update": android_update,
}


@pytest.mark.parametrize("kind", SIGNED)
def test_a_signed_archive_is_changed_only_when_that_is_said(kind: str, engine: Engine) -> None:
    data = SIGNED[kind]()
    engine.original.write_bytes(data)
    with ZipSource(engine.original) as source:
        assert source.signature()
    with pytest.raises(SignedArchive):
        engine.merge(data, {b"page.html": b"new"})
    assert engine.merge(data, {b"page.html": b"new"}, allow_signed=True) != data


@pytest.mark.parametrize(
    "name",
    [
        "signature.html", "email/signature.png", "signatures/index.html", "META-INF/MANIFEST.MF",
        "META-INF/container.xml", "css/certificate.css", "docs/signature/a.html", "a.p7s.html",
        "code_signature.html", "signature.js",
    ],
)  # fmt: skip
def test_other_names_are_no_signatures(name: str, engine: Engine) -> None:
    engine.original.write_bytes(with_member(name))
    with ZipSource(engine.original) as source:
        assert not source.signature()


def test_an_ordinary_comment_is_no_signature(engine: Engine) -> None:
    for comment in (b"made by us", b"\xff\xff" * 4, b"x" * 200 + b"\xff\xff\xff\xff\xff\xff"):
        engine.original.write_bytes(build([PAGE], comment=comment).data)
        with ZipSource(engine.original) as source:
            assert not source.signature()
