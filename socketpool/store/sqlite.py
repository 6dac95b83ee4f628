"""The embedded lease store: one SQLite file, written ahead and synced at each commit."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from socketpool.core.records import Grant
from socketpool.errors import StoreError
from socketpool.store.contract import Change, Forget, LeaseRecord, Save

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS live (
    id TEXT PRIMARY KEY,
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS highest (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO highest VALUES (1, 0);
DROP TABLE IF EXISTS lease; -- of versions before 0.1, with another form
"""

# One statement for however many leases: at each, Python gives its lock away and has to get it back
# from a server that is busy.
_SAVE = "INSERT OR REPLACE INTO live SELECT value ->> 0, value FROM json_each(?)"
_FORGET = "DELETE FROM live WHERE id IN (SELECT value FROM json_each(?))"
_RAISE = "UPDATE highest SET generation = max(generation, ?)"


class SqliteLeaseStore:
    """A `LeaseStore` in a file; raises :class:`StoreError` when it can't be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def load(self) -> tuple[list[LeaseRecord], int]:
        """See `LeaseStore.load`."""
        try:
            rows = self._db.execute("SELECT record FROM live").fetchall()
            (highest,) = self._db.execute("SELECT generation FROM highest").fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from None
        try:
            records = [_read(text) for (text,) in rows]
        except (ValueError, TypeError):
            raise StoreError(
                f"{self._path.name}: the record of a lease is damaged",
                hint="remove the file while the pool is stopped; its leases end with it",
            ) from None
        return sorted(records, key=lambda record: record.generation), highest

    def commit(self, changes: Sequence[Change]) -> None:
        """See `LeaseStore.commit`; many changes cost one sync."""
        saved = {c.record.id: c.record for c in changes if isinstance(c, Save)}
        latest = {_id(change): change for change in changes}
        forgotten = [c.lease_id for c in latest.values() if isinstance(c, Forget)]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if saved:
                self._db.execute(_SAVE, (json.dumps([*saved.values()], allow_nan=False),))
                self._db.execute(_RAISE, (max(r.generation for r in saved.values()),))
            if forgotten:
                self._db.execute(_FORGET, (json.dumps(forgotten),))
            self._db.execute("COMMIT")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._failure(error) from None

    def close(self) -> None:
        """See `LeaseStore.close`."""
        self._db.close()

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self._path.name}: {error}",
            hint="check that the state directory's disk is writable and has space",
        )


def _id(change: Change) -> str:
    return change.record.id if isinstance(change, Save) else change.lease_id


def _read(text: str) -> LeaseRecord:
    """A record as JSON has it, an array of its fields."""
    lease, generation, client, key, ttl, created, grants = json.loads(text)
    if not all(isinstance(word, str) for word in (lease, client, key)):
        raise TypeError("not a lease")
    held = tuple(Grant(service, int(port), instance) for service, port, instance in grants)
    return LeaseRecord(lease, int(generation), client, key, float(ttl), float(created), held)
