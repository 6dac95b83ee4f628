"""vendor: the processing code.  This file is the operator's to edit.

The example minifies HTML, CSS and JavaScript.  To do something else, rewrite `Vendor.transfer`:
``self.members`` maps each member's name to a file; read it, overwrite it, and it goes back.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from socketpool.errors import ServiceFailed
from socketpool.rsi import VendorServer

try:
    import minify_html
except ImportError:  # told to the client, when there is one, rather than to a log nobody reads
    HAS_MINIFIER = False
else:
    HAS_MINIFIER = True

if TYPE_CHECKING:
    from pathlib import Path

# A minifier for HTML lower-cases attribute names and may move text: fatal to templates.
TEMPLATE = re.compile(r"\{\{|\{%|<%|<\?php|\s(?:\*ng[A-Z]|[\[(]+[A-Za-z.-]+[\])]+=)")

WRAPPER = {".css": ("<style>", "</style>"), ".js": ("<script>", "</script>")}


class Vendor(VendorServer):
    """Minifies what it knows and leaves everything else as it came."""

    def transfer(self) -> None:
        """Replace each member by its minified form where that is shorter."""
        if not HAS_MINIFIER:
            raise ServiceFailed(
                "this pool's vendor example needs the package minify-html",
                hint="its operator installs it (pip install 'socketpool[demo]'), then restarts",
            )
        before: Counter[str] = Counter()
        after: Counter[str] = Counter()
        count: Counter[str] = Counter()
        for number, (name, path) in enumerate(self.members.items(), 1):
            kind = path.suffix.lower()
            if kind in {".html", ".htm", ".css", ".js"}:
                size = path.stat().st_size
                self.minify_file(path, kind)
                before[kind] += size
                after[kind] += path.stat().st_size
                count[kind] += 1
            self.progress(number, len(self.members), name)
        for kind in sorted(before):
            saved = 1 - after[kind] / before[kind] if before[kind] else 0.0
            self.report(
                f"{kind[1:]}: {count[kind]} members, {before[kind]:,} -> {after[kind]:,} bytes, "
                f"{saved:.0%} saved"
            )

    def minify_file(self, path: Path, kind: str) -> None:
        """Minify one file in place, if it is text that a minifier understands."""
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return
        result = minify_html_text(text) if kind in {".html", ".htm"} else minify_inside(text, kind)
        if result is not None and len(result) < len(text):
            path.write_text(result, encoding="utf-8", newline="")


def minify_html_text(text: str) -> str | None:
    """Smaller HTML that every browser reads the same way; None for templates."""
    if TEMPLATE.search(text):
        return None
    return str(
        minify_html.minify(
            text,
            keep_closing_tags=True,
            keep_html_and_head_opening_tags=True,
            keep_input_type_text_attr=True,
            minify_css=True,
            minify_js=True,
        )
    )


def minify_inside(text: str, kind: str) -> str | None:
    """Smaller CSS or JavaScript, minified as the only element of a page; None if that fails."""
    opening, closing = WRAPPER[kind]
    if closing[:-1] in text.lower():
        return None
    page = str(minify_html.minify(opening + text + closing, minify_css=True, minify_js=True))
    if not (page.startswith(opening) and page.endswith(closing)):
        return None
    return page[len(opening) : -len(closing)] or None
