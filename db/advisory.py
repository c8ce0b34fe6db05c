"""PostgreSQL's advisory locks: one holder among all machines, and they go with the holder's connection."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError


def _number(name: str) -> int:
    """The lock's number, 64 bits: PostgreSQL knows locks by numbers only."""
    return int.from_bytes(hashlib.sha256(f"cellloop {name}".encode()).digest()[:8], "big", signed=True)


@contextmanager
def advisory(engine: Engine, name: str, *, wait: bool = True) -> Iterator[Connection | None]:
    """Hold the lock of this name inside the block, on a connection of its own; threads exclude each other as well.

    wait: until it is free. Otherwise None comes when somebody holds it. Where the connection breaks, the lock is lost:
    ask `holds`.
    """
    lock = "SELECT pg_advisory_lock(:number), true" if wait else "SELECT pg_try_advisory_lock(:number)"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        got = connection.execute(text(lock), {"number": _number(name)}).one()[-1]
        if not got:
            yield None
            return
        try:
            yield connection
        finally:
            connection.invalidate()  # closes it, and PostgreSQL lets go of the lock, in whatever state it is


def holds(connection: Connection) -> bool:
    """Whether the connection that holds a lock still stands."""
    try:
        connection.execute(text("SELECT 1"))
    except DBAPIError:
        return False
    return True
