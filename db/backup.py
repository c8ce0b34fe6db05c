"""The whole record as rows that no engine is needed to read, and back into an empty one.

A read-only session sees everything as it was at one moment, however many people write meanwhile. Tables marked
`info={"derived": True}` are left out: they follow from the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    Text,
    cast,
    func,
    inspect,
    select,
    text,
    type_coerce,
    update,
)
from sqlalchemy.types import TypeEngine

from db.bulk import Rows
from db.ids import highest_gone
from db.models import Base, Forgetting, Image, Json, ModelVersion, RunStatus, TrainingRun, UtcDateTime, now
from db.runs import OPEN
from db.session import make_engine, parse_url

Kind = Literal["integer", "number", "truth", "text", "json", "bytes", "moment", "day"]

FETCH = 1000  # rows at a time: one may hold a megabyte
# A kind's column type when rows are put back; what a model's column is, `kind_of` says.
TYPES: dict[Kind, type[TypeEngine[Any]] | TypeEngine[Any]] = {
    "integer": BigInteger,
    "number": Float,
    "truth": Boolean,
    "text": Text,
    "json": Json,
    "bytes": LargeBinary,
    "moment": UtcDateTime,
    "day": Date,
}


def kind_of(column: Column[Any]) -> Kind:
    """What a column holds, whatever the engine makes of it. Raises TypeError for a type that a backup cannot keep."""
    kinds: list[tuple[type[Any], Kind]] = [
        (JSON, "json"),
        (UtcDateTime, "moment"),
        (Boolean, "truth"),
        (Integer, "integer"),
        (Float, "number"),
        (LargeBinary, "bytes"),
        (Date, "day"),
        (String, "text"),
    ]
    for known, kind in kinds:
        if isinstance(column.type, known):
            return kind
    raise TypeError(f"{column}: expected a type that db/backup.py knows, got {column.type!r}; teach it there")


def kept_tables() -> list[Table]:
    """Every table that holds facts; one that refers to others comes after them."""
    return [table for table in Base.metadata.sorted_tables if not table.info.get("derived")]


def table_of(name: str, columns: Mapping[str, Kind]) -> Table:
    """A table as it was when it was backed up, for `db.bulk.insert_rows`: today's models may have another one."""
    return Table(name, MetaData(), *(Column(column, TYPES[kind]) for column, kind in columns.items()))


def row_count(connection: Connection, table: Table) -> int:
    """How many rows a table has."""
    return connection.scalar(select(func.count()).select_from(table)) or 0


def rows(connection: Connection, table: Table) -> Iterator[Rows]:
    """All rows in the order of their keys, some at a time; values are those of `kind_of`, JSON as its text."""

    def plain(column: Column[Any]) -> Any:
        kind = kind_of(column)
        if kind == "json":
            return cast(column, Text)
        return type_coerce(column, Text) if kind == "text" else column  # a state is its word

    query: Select[Any] = select(*map(plain, table.columns)).order_by(*table.primary_key.columns)
    yield from connection.execute(query.execution_options(yield_per=FETCH)).partitions()


def files(connection: Connection) -> tuple[list[tuple[str, str]], list[str]]:
    """What rows refer to: (path in the file store, sha256) of every image, and the sha256 of every weight file."""
    images = connection.execute(select(Image.file, Image.sha256).order_by(Image.id)).all()
    weights = connection.scalars(select(ModelVersion.weights_sha256).distinct().order_by(ModelVersion.weights_sha256))
    return [(row.file, row.sha256) for row in images], list(weights)


def filled_tables(connection: Connection) -> dict[str, int]:
    """Our tables that have rows, and how many; a database that was never migrated has none."""
    there = set(inspect(connection).get_table_names())
    counts = {table.name: row_count(connection, table) for table in kept_tables() if table.name in there}
    return {name: count for name, count in counts.items() if count}


def has_jobs(url: str) -> bool:
    """Whether the job runtime's tables at this address remember any job. Makes nothing."""
    parsed = parse_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and not Path(parsed.database or "").exists():
        return False
    engine = make_engine(url)
    schema = None if sqlite else "dbos"
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("workflow_status", schema=schema):
                return False
            jobs = Table("workflow_status", MetaData(), schema=schema)
            return bool(connection.scalar(select(func.count()).select_from(jobs)))
    finally:
        engine.dispose()


def keep_writers_out(connection: Connection, tables: Sequence[str]) -> None:
    """Until this transaction ends, nobody else writes into these tables. SQLite's transactions do so by themselves."""
    if connection.dialect.name == "postgresql":
        quote = connection.dialect.identifier_preparer.quote
        connection.execute(text(f"LOCK TABLE {', '.join(map(quote, tables))} IN EXCLUSIVE MODE"))


def fail_open_runs(connection: Connection, error: str) -> int:
    """Record queued and running trainings as failed; how many."""
    moment = now()
    ended = {"status": RunStatus.failed, "error": error, "finished_at": moment, "updated_at": moment}
    return connection.execute(update(TrainingRun).where(TrainingRun.status.in_(OPEN)).values(ended)).rowcount


def count_on(connection: Connection, tables: Sequence[str]) -> None:
    """Let new rows get ids after those that were put in or forgotten before, and let PostgreSQL learn its tables."""
    if connection.dialect.name != "postgresql":
        return
    quote = connection.dialect.identifier_preparer.quote
    removals = connection.scalars(select(Forgetting.removed)).all() if "forgettings" in tables else []
    for name in tables:
        if any(column["name"] == "id" for column in inspect(connection).get_columns(name)):
            newest = f"SELECT greatest(max(id), :gone) FROM {quote(name)}"
            if highest := connection.scalar(text(newest), {"gone": highest_gone(removals, name)}):
                sequence = text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :highest)")
                connection.execute(sequence, {"name": quote(name), "highest": highest})
        connection.execute(text(f"ANALYZE {quote(name)}"))
