"""Vectors of texts that were embedded before, on the client's own disk: each costs a query of seconds."""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
BUSY_SECONDS = 60.0


class EmbeddingCache:
    """One SQLite file for one model. It holds digests of texts and their vectors, readable by its owner alone.

    A vector tells much of its text: the file is as private as the texts are. model: the model's digest; ValueError for a file
    that holds another's vectors, whose cosines with this one's would mean nothing.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._connect() as database:
            database.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)")
            database.execute("CREATE TABLE IF NOT EXISTS model (digest TEXT NOT NULL)")
            known = database.execute("SELECT digest FROM model").fetchone()
            if known is None and database.execute("SELECT 1 FROM vectors LIMIT 1").fetchone() is None:
                database.execute("INSERT INTO model VALUES (?)", (model,))
            elif known != (model,):
                raise ValueError(f"{path} holds vectors of another model: choose another file for this one's")

    def missing(self, texts: list[str]) -> list[str]:
        """Those of the texts that have no vector yet, each once, in order."""
        with self._connect() as database:
            return [text for text in dict.fromkeys(texts) if _find(database, text) is None]

    def fill(
        self,
        texts: list[str],
        embed: Callable[[str], Vector | None],
        progress: Callable[[int, int], None] = lambda _d, _t: None,
    ) -> None:
        """Embed what is missing, but for what has no vector (None); each is kept at once, so that a stopped run goes on."""
        missing = self.missing(texts)
        progress(0, len(missing))
        for done, text in enumerate(missing, 1):
            vector = embed(text)
            if vector is not None:
                content = np.asarray(vector, np.float32).tobytes()
                with self._connect() as database:
                    database.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (_digest(text), content))
            progress(done, len(missing))

    def vectors(self, texts: list[str]) -> Vector:
        """float32 [texts, features], in order. ValueError for a text that has none."""
        with self._connect() as database:
            found = [_find(database, text) for text in texts]
        there = [vector for vector in found if vector is not None]
        if len(there) < len(found):
            raise ValueError(f"{len(found) - len(there)} of {len(found)} texts have not been embedded")
        return np.stack(there) if there else np.zeros((0, 0), np.float32)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """For one block: committed when it ends, rolled back when it raises, closed in any case."""
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as database, database:
            yield database


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _find(database: sqlite3.Connection, text: str) -> Vector | None:
    row = database.execute("SELECT vector FROM vectors WHERE text = ?", (_digest(text),)).fetchone()
    return None if row is None else np.frombuffer(row[0], np.float32)
