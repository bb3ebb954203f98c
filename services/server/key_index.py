"""What the key store remembers, in SQLite: key sets and whose they are, the file of each key, inputs that ended a worker.

Rows are written after the files they name and deleted before them, so that at any moment every row has its file.
Time is the store's own clock (see key_store.py), in seconds.
"""

import sqlite3
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (only INTEGER PRIMARY KEY CHECK (only = 0), seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS key_sets (
    name TEXT PRIMARY KEY, tenant TEXT NOT NULL, program TEXT NOT NULL, bytes INTEGER NOT NULL,
    used REAL NOT NULL, whole INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS key_sets_by_tenant ON key_sets (tenant);
CREATE TABLE IF NOT EXISTS keys (
    key_set TEXT NOT NULL REFERENCES key_sets (name) ON DELETE CASCADE,
    element INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (key_set, element)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (digest TEXT PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
"""
QUARANTINED = 10_000
"""Digests remembered: the oldest are forgotten first."""


class KeyIndex:
    """One database file. Every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;" + _SCHEMA
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def clock(self) -> float:
        """The time that was last set."""
        row = self._database.execute("SELECT seconds FROM clock").fetchone()
        return float(row[0]) if row else 0.0

    def set_clock(self, seconds: float) -> None:
        """Remember the time."""
        self._database.execute("INSERT OR REPLACE INTO clock VALUES (0, ?)", (seconds,))

    def add_set(self, name: str, tenant: str, program: str, size: int, now: float) -> None:
        """A new key set that will take `size` bytes."""
        self._database.execute("INSERT INTO key_sets VALUES (?, ?, ?, ?, ?, 0)", (name, tenant, program, size, now))

    def has_set(self, name: str, tenant: str) -> bool:
        """Whether this tenant has a set of this name. Another's set is not found, as one that does not exist."""
        return self._one("SELECT 1 FROM key_sets WHERE name = ? AND tenant = ?", name, tenant) is not None

    def sets_of(self, tenant: str) -> list[str]:
        """Names, the longest unused first."""
        return self._names("SELECT name FROM key_sets WHERE tenant = ? ORDER BY used", tenant)

    def by_age(self) -> list[tuple[str, int]]:
        """(name, bytes) of every set, the longest unused first."""
        return list(self._database.execute("SELECT name, bytes FROM key_sets ORDER BY used"))

    def reserved_bytes(self) -> int:
        """Bytes that all sets take once they are whole."""
        return int(str(self._one("SELECT COALESCE(SUM(bytes), 0) FROM key_sets") or 0))

    def count(self) -> int:
        """Key sets."""
        return int(str(self._one("SELECT COUNT(*) FROM key_sets") or 0))

    def unused_since(self, whole_before: float, unfinished_before: float) -> list[str]:
        """Sets last used before these times."""
        query = "SELECT name FROM key_sets WHERE used < CASE whole WHEN 1 THEN ? ELSE ? END"
        return self._names(query, whole_before, unfinished_before)

    def of_other_programs(self, program: str) -> list[str]:
        """Sets that a former model left."""
        return self._names("SELECT name FROM key_sets WHERE program != ?", program)

    def touch(self, name: str, now: float) -> None:
        """The set is in use."""
        self._database.execute("UPDATE key_sets SET used = ? WHERE name = ?", (now, name))

    def mark_whole(self, name: str) -> None:
        """All keys of the set are there."""
        self._database.execute("UPDATE key_sets SET whole = 1 WHERE name = ?", (name,))

    def remove_set(self, name: str) -> None:
        """Forget a set and which keys it had."""
        self._database.execute("DELETE FROM key_sets WHERE name = ?", (name,))

    def add_key(self, name: str, element: int, digest: str) -> None:
        """The set's key of this Galois element is the file of this digest."""
        self._database.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", (name, element, digest))

    def remove_key(self, name: str, element: int) -> None:
        """The key is no longer there."""
        self._database.execute("DELETE FROM keys WHERE key_set = ? AND element = ?", (name, element))

    def keys(self, name: str) -> dict[int, str]:
        """Galois element -> digest."""
        return dict(self._database.execute("SELECT element, digest FROM keys WHERE key_set = ?", (name,)))

    def files(self) -> set[tuple[str, str]]:
        """(tenant, digest) of every file that some set needs."""
        query = "SELECT DISTINCT tenant, digest FROM keys JOIN key_sets ON key_sets.name = keys.key_set"
        return set(self._database.execute(query))

    def is_needed(self, tenant: str, digest: str) -> bool:
        """Whether a set of this tenant has this file."""
        query = "SELECT 1 FROM keys JOIN key_sets ON name = key_set WHERE tenant = ? AND digest = ? LIMIT 1"
        return self._one(query, tenant, digest) is not None

    def tenant_of(self, name: str) -> str | None:
        """Whose set it is."""
        found = self._one("SELECT tenant FROM key_sets WHERE name = ?", name)
        return None if found is None else str(found)

    def names(self) -> list[str]:
        """Every set."""
        return self._names("SELECT name FROM key_sets")

    def quarantine(self, digest: str, now: float) -> None:
        """Never try this input again."""
        self._database.execute("INSERT OR REPLACE INTO quarantine VALUES (?, ?)", (digest, now))
        self._database.execute(
            "DELETE FROM quarantine WHERE digest IN (SELECT digest FROM quarantine ORDER BY time DESC LIMIT -1 OFFSET ?)",
            (QUARANTINED,),
        )

    def is_quarantined(self, digest: str) -> bool:
        """Whether this input killed a worker."""
        return self._one("SELECT 1 FROM quarantine WHERE digest = ?", digest) is not None

    def _one(self, query: str, *values: object) -> object:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _names(self, query: str, *values: object) -> list[str]:
        return [str(row[0]) for row in self._database.execute(query, values)]
