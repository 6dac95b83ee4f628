"""Which returned member belongs to which sent one; everything else that comes back is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from socketpool.archive.names import sent_name, show
from socketpool.archive.refusals import NeverSent, ReturnedTwice

if TYPE_CHECKING:
    from socketpool.archive.manifest import Manifest


class Matcher:
    """Finds manifest rows by the name under which members travel, each at most once.

    Members mostly come back in the order they were sent, so the rows behind the last one found are
    looked at first; a table of all names is made only when that fails.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._seen = bytearray(len(manifest))
        self._next = 0
        self._table: dict[bytes, int] | None = None
        self._folders: set[bytes] | None = None

    def row(self, name: bytes, size: int) -> int | None:
        """The row of a returned member, or None for the entry of a folder on the way to one.

        Raises :class:`NeverSent` or :class:`ReturnedTwice`.
        """
        row = self._find(sent_name(name) if name[:1] in b"/." else name)
        if row is None:
            if self._folders is None:
                self._folders = _folders(self._manifest)
            if size or sent_name(name) not in self._folders:
                raise NeverSent(
                    f"The member {show(name)} came back but was never sent.",
                    hint="Nothing was changed. Only what was sent can be replaced.",
                )
            return None
        if self._seen[row]:
            raise ReturnedTwice(
                f"The member {show(name)} came back more than once.", hint="Nothing was changed."
            )
        self._seen[row] = 1
        self._next = row + 1
        return row

    def _find(self, name: bytes) -> int | None:
        if self._table is None:
            name_at, total = self._manifest.name, len(self._seen)
            if self._next < total and sent_name(name_at(self._next)) == name:
                return self._next
            for row in range(self._next + 1, total):
                if sent_name(name_at(row)) == name:
                    return row
            self._table = {sent_name(name_at(row)): row for row in range(total)}
        return self._table.get(name)


def _folders(manifest: Manifest) -> set[bytes]:
    """Folders on the way to what was sent; zip programs add entries for them, without content."""
    found: set[bytes] = set()
    for at in range(len(manifest)):
        name = sent_name(manifest.name(at))
        while (cut := name.rfind(b"/", 0, -1)) >= 0:
            name = name[: cut + 1]
            if name in found:
                break
            found.add(name)
    return found
