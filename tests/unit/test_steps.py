"""Which services make sense in which order."""

from __future__ import annotations

import pytest

from socketpool.client.steps import check_order
from socketpool.core.servicekinds import ServiceKind
from socketpool.errors import UsageError

KINDS = {
    "upload": ServiceKind.UPLOAD,
    "vendor": ServiceKind.VENDOR,
    "minify": ServiceKind.VENDOR,
    "download": ServiceKind.DOWNLOAD,
    "web": None,
}


@pytest.mark.parametrize(
    "services",
    [
        "upload vendor",
        "upload vendor download",
        "upload minify vendor download",
        "upload vendor vendor download",
        "upload vendor minify vendor download",
        "upload minify minify minify download",
        "",
    ],
)
def test_an_order_that_makes_sense_is_accepted(services: str) -> None:
    check_order(services.split(), KINDS)


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ("vendor", "'vendor' can't run yet: it needs an upload before it"),
        ("download", "'download' can't run yet: it needs a vendor step before it"),
        ("upload download", "it needs a vendor step"),
        ("vendor upload download", "it needs an upload"),
        ("download vendor upload", "it needs a vendor step"),
        ("upload web", "plain program"),
        ("upload", "nothing uses what 'upload' sends: no vendor step comes after it"),
        ("upload upload vendor download", "nothing uses what 'upload' sends before it"),
        ("upload vendor upload vendor download", "it discards what 'vendor' did before it"),
        ("upload vendor download upload vendor", "it discards what 'vendor' did before it"),
        ("upload vendor download download", "'download' has nothing to fetch"),
        ("upload vendor download minify download", "nothing fetches what 'minify' does"),
        ("upload vendor download minify", "it comes after the download"),
    ],
)
def test_an_order_that_can_t_work_is_refused_with_what_is_missing(
    services: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_order(services.split(), KINDS)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no service is named 'uplaod'") as caught:
        check_order(["uplaod", "vendor"], KINDS)
    assert caught.value.hint == "known services: download, minify, upload, vendor, web"
