"""What the stand-in for Label Studio remembers: documents in a SQLite file that survives its own kill -9."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Document = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT, id INTEGER, parent INTEGER, body TEXT, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_parent ON documents (kind, parent);
CREATE TABLE IF NOT EXISTS ids (kind TEXT PRIMARY KEY, last INTEGER);
"""


def moment() -> str:
    """The present by this process's clock, as Label Studio writes it."""
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class StandInStore:
    """Documents by kind and id, each below a parent (a task's project, an annotation's task). Ids are never reused."""

    def __init__(self, file: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        # A killed process loses nothing that it wrote; only a machine without power would.
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, one after the other."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def add(self, kind: str, parent: int, body: Document) -> Document:
        """Store a new document; it with its id."""
        query = "INSERT INTO ids VALUES (?, 1) ON CONFLICT (kind) DO UPDATE SET last = last + 1 RETURNING last"
        number = int(self._connection.execute(query, (kind,)).fetchone()[0])
        stored = {**body, "id": number}
        self._connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?)", (kind, number, parent, json.dumps(stored))
        )
        return stored

    def get(self, kind: str, number: int) -> Document | None:
        """One document, None when there is none."""
        query = "SELECT body FROM documents WHERE kind = ? AND id = ?"
        row = self._connection.execute(query, (kind, number)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def below(self, kind: str, parent: int | None = None) -> list[Document]:
        """The documents of a kind, below one parent when given, by id."""
        query = "SELECT body FROM documents WHERE kind = ?" + ("" if parent is None else " AND parent = ?")
        values = (kind,) if parent is None else (kind, parent)
        return [json.loads(row[0]) for row in self._connection.execute(f"{query} ORDER BY id", values)]

    def change(self, kind: str, number: int, **fields: Any) -> Document | None:
        """Set fields of a document; it as it is now, None when it is gone."""
        held = self.get(kind, number)
        if held is None:
            return None
        changed = {**held, **fields}
        self._connection.execute(
            "UPDATE documents SET body = ? WHERE kind = ? AND id = ?", (json.dumps(changed), kind, number)
        )
        return changed

    def remove(self, kind: str, number: int) -> Document | None:
        """Forget a document; it as it was, None when it is gone already."""
        held = self.get(kind, number)
        self._connection.execute("DELETE FROM documents WHERE kind = ? AND id = ?", (kind, number))
        return held
