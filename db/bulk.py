"""Many rows into a table, as fast as each engine takes them: COPY on PostgreSQL, executemany on SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import psycopg
from sqlalchemy import JSON, Connection, Table
from sqlalchemy.exc import DBAPIError

from db import definitions, derived, migrate
from db.errors import RowsRefused

Rows = Sequence[Sequence[Any]]

# SQLite keeps 2 MB of pages. A load touches more of every index: with this much, 10 million cells took new predictions
# half as fast again.
CACHE_KIB = 65_536


@contextmanager
def loading(connection: Connection) -> Iterator[None]:
    """Inside, rows come without the triggers that guard and follow them: on SQLite in half the time.

    At the end all that follows from them is made at once, and the triggers are back, in the connection's transaction:
    nobody ever sees a table without its guard. For a record that nobody else works with, as its tables are locked.
    """
    definitions.drop(connection)
    yield
    derived.rebuild(connection)
    if migrate.revision_of(connection) == migrate.head():  # an older schema has none, until it is migrated
        definitions.create(connection)


def insert_rows(connection: Connection, table: Table, batches: Iterable[Rows]) -> int:
    """Insert rows inside the connection's transaction; how many.

    A row has a value for each column of `table`, in order: moments with their zone, JSON as its text, everything else
    as Python has it. Defaults are not filled in; `table` may leave out columns that may be NULL. Some thousand rows
    make a good batch. Raises RowsRefused when the database does not take them: then roll back.
    """
    quote = connection.dialect.identifier_preparer.quote
    target = f"{quote(table.name)} ({', '.join(quote(column.name) for column in table.columns)})"
    insert = _copy if connection.dialect.name == "postgresql" else _execute_many
    try:
        return insert(connection, target, _prepared(connection, table, batches))
    except (psycopg.Error, DBAPIError) as error:
        reason = str(error.orig if isinstance(error, DBAPIError) else error).split("\n")[0]
        raise RowsRefused(f"{table.name}: expected rows that the database takes, it says: {reason}") from error


def _prepared(connection: Connection, table: Table, batches: Iterable[Rows]) -> Iterator[Rows]:
    """The batches with every value as the driver takes it."""
    needed = {}
    for index, column in enumerate(table.columns):
        process = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        if process is not None and not isinstance(column.type, JSON):
            needed[index] = process
    for batch in batches:
        if not batch:
            continue
        columns: list[Sequence[Any]] = list(zip(*batch, strict=True))
        for index, process in needed.items():
            columns[index] = [process(value) for value in columns[index]]
        yield list(zip(*columns, strict=True)) if needed else batch


def _copy(connection: Connection, target: str, batches: Iterator[Rows]) -> int:
    count = 0
    cursor: Any = connection.connection.cursor()  # psycopg's own: SQLAlchemy has no COPY
    with cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
        for row in chain.from_iterable(batches):
            copy.write_row(row)
            count += 1
    return count


def _execute_many(connection: Connection, target: str, batches: Iterator[Rows]) -> int:
    connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE_KIB}")
    count = 0
    for batch in batches:
        marks = ", ".join("?" * len(batch[0]))
        connection.exec_driver_sql(f"INSERT INTO {target} VALUES ({marks})", [tuple(row) for row in batch])
        count += len(batch)
    return count
