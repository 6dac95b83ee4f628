"""The embedded lease store: one SQLite file, written ahead and synced at each commit."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from socketpool.core.records import Grant
from socketpool.store.contract import Change, LeaseRecord, Save, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lease (
    id TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    client TEXT NOT NULL,
    key TEXT NOT NULL,
    ttl REAL NOT NULL,
    created REAL NOT NULL,
    grants TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS highest (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    generation INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO highest VALUES (1, 0);
"""

_ADD_CLIENT = "ALTER TABLE lease ADD COLUMN client TEXT NOT NULL DEFAULT ''"
"""For files from before there were named clients."""

_COLUMNS = "id, generation, client, key, ttl, created, grants"
_SAVE = f"INSERT OR REPLACE INTO lease ({_COLUMNS}) VALUES (?,?,?,?,?,?,?)"  # noqa: S608 - constant


class SqliteLeaseStore:
    """A `LeaseStore` in a file; raises :class:`StoreError` when it can't be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            if "client" not in {row[1] for row in self._db.execute("PRAGMA table_info(lease)")}:
                self._db.execute(_ADD_CLIENT)
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def load(self) -> tuple[list[LeaseRecord], int]:
        """See `LeaseStore.load`."""
        try:
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM lease ORDER BY generation"  # noqa: S608 - a constant
            ).fetchall()
            (highest,) = self._db.execute("SELECT generation FROM highest").fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from None
        try:
            records = [
                LeaseRecord(i, g, n, k, t, c, _read_grants(text)) for i, g, n, k, t, c, text in rows
            ]
        except (ValueError, TypeError):
            raise StoreError(
                f"{self._path.name}: the record of a lease is damaged",
                hint="remove the file while the pool is stopped; its leases end with it",
            ) from None
        return records, highest

    def commit(self, changes: Sequence[Change]) -> None:
        """See `LeaseStore.commit`; many changes cost one sync."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                if isinstance(change, Save):
                    r = change.record
                    row = (*r[:-1], _grants(r))
                    self._db.execute(_SAVE, row)
                    self._db.execute(
                        "UPDATE highest SET generation = max(generation, ?)", (r.generation,)
                    )
                else:
                    self._db.execute("DELETE FROM lease WHERE id = ?", (change.lease_id,))
            self._db.execute("COMMIT")
        except (sqlite3.Error, ValueError, OverflowError) as error:  # or a value it can't take
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


def _grants(record: LeaseRecord) -> str:
    return json.dumps([[g.service, g.port, g.instance] for g in record.grants])


def _read_grants(text: str) -> tuple[Grant, ...]:
    grants = json.loads(text)
    if not isinstance(grants, list):
        raise TypeError("not a list of grants")
    return tuple(Grant(service, int(port), instance) for service, port, instance in grants)
