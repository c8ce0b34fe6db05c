"""Engines and the one place that commits.

SQLite: a deferred BEGIN that reads and then writes fails with "database is locked" under concurrency, in spite of
the busy timeout (the snapshot is stale and cannot be upgraded). So every transaction starts with BEGIN IMMEDIATE
and waits its turn, except those that promise to read only.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from db.errors import UnusableDatabase

BUSY_TIMEOUT_MS = 30_000
LOOK_S = 0.001  # between two looks whether another process has ended its writing
LONG_S = 0.005  # who has kept others from writing for so long lets them go first, for GAP_S:
GAP_S = 4 * LOOK_S  # a sync takes one transaction after the other, and webhooks waited for a dozen of them
# The server answers from about 40 threads. More connections than this make all of them slower: with 50, fifty experts
# who asked at once waited up to 174 ms (99 of 100), with 16 up to 74 ms, on two cores.
POOL = {"pool_size": 8, "max_overflow": 8}


def _dumps(value: Any) -> str:
    """JSON for a column. NaN is refused on both engines alike: PostgreSQL could not store it."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def parse_url(url: str) -> URL:
    """The address with its driver named: SQLite in a file, or PostgreSQL through psycopg. Raises UnusableDatabase."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UnusableDatabase(
            f"expected a database address like sqlite:///cellloop.db or postgresql://user@host/name, got {url!r}"
        ) from None
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise UnusableDatabase(f"expected SQLite or PostgreSQL, got {backend!r}: change the database address")
    if parsed.database in (None, "", ":memory:"):
        raise UnusableDatabase("expected a SQLite file, got an in-memory database: server and loop must share it")
    return parsed


def _configure_sqlite(engine: Engine, foreign_keys: bool) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # the driver must not begin transactions by itself
        cursor = dbapi_connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten: a forgotten patient, above all
        cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        cursor.close()

    turn = threading.Lock()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        read_only = bool(connection.get_execution_options().get("read_only"))
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        if read_only:
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_writing(connection, turn)


def _begin_writing(connection: Connection, turn: threading.Lock) -> None:
    """BEGIN IMMEDIATE within the connection's busy timeout, looking often whether the other writer has ended.

    SQLite's own waiting sleeps for up to 100 ms between two looks and so misses the short gaps that a busy writer in
    another process leaves: webhooks waited for half a second beside a sync. Of one process, one thread looks.
    """
    cursor = connection.connection.cursor()
    (patience_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone() or (0,)
    deadline = time.monotonic() + patience_ms / 1000
    cursor.execute("PRAGMA busy_timeout = 0")
    ours = turn.acquire(timeout=patience_ms / 1000)
    try:
        while ours and time.monotonic() < deadline:
            try:
                cursor.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            time.sleep(LOOK_S)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the last try, whose error is told
    finally:
        if ours:
            turn.release()
        cursor.execute(f"PRAGMA busy_timeout = {patience_ms}")
        cursor.close()


def make_engine(url: str, *, foreign_keys: bool = True) -> Engine:
    """An engine for this address. `foreign_keys=False` is for migrations that rebuild SQLite tables."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, json_serializer=_dumps, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        _configure_sqlite(engine, foreign_keys)
        return engine
    return create_engine(parsed, json_serializer=_dumps, pool_pre_ping=True, **POOL)


class Database:
    """An address and its engine; hands out sessions. Shared by all threads of a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = make_engine(url)
        self._reading = self.engine.execution_options(read_only=True, postgresql_readonly=True)
        if self.engine.dialect.name == "postgresql":  # as on SQLite: what is read is one moment of the record
            self._reading = self._reading.execution_options(isolation_level="REPEATABLE READ")
        self._one_writes = self.engine.dialect.name == "sqlite"
        self._written = threading.local()  # of each thread: when its last long transaction ended

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: commits on success, rolls back on an error. Nothing else in the system commits.

        Rows stay readable afterwards. A read-only session sees one moment, never waits for writers, and is refused
        any write.
        """
        if read_only:
            with Session(self._reading, expire_on_commit=False) as session, session.begin():
                yield session
            return
        if self._one_writes:
            time.sleep(max(0.0, getattr(self._written, "at", 0.0) + GAP_S - time.monotonic()))
        began = time.monotonic()
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session
        if time.monotonic() - began > LONG_S:
            self._written.at = time.monotonic()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()
