"""The record as plain rows: every column of every table has a kind, and the snapshot can only read."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Interval, MetaData, Table
from sqlalchemy.exc import DBAPIError

from db import backup
from db.models import Base
from db.session import Database
from tests.builders import add_image


def test_every_column_has_a_kind_and_facts_come_after_what_they_refer_to() -> None:
    tables = backup.kept_tables()
    assert len(tables) >= 25
    for table in tables:
        kinds = {column.name: backup.kind_of(column) for column in table.columns}
        assert set(backup.table_of(table.name, kinds).columns.keys()) == set(table.columns.keys())
        before = {known.name for known in tables[: tables.index(table)]}
        assert {key.column.table.name for key in table.foreign_keys} <= before
    left_out = Base.metadata.tables.keys() - {table.name for table in tables}
    assert left_out == {"current_labels", "label_counts", "predicted_counts"}


def test_an_unknown_type_is_not_guessed() -> None:
    with pytest.raises(TypeError, match=r"t\.span: expected a type that db/backup\.py knows"):
        backup.kind_of(Table("t", MetaData(), Column("span", Interval)).columns.span)


def test_a_snapshot_stays_at_its_moment_and_refuses_to_write(database: Database) -> None:
    images = Base.metadata.tables["images"]
    with backup.snapshot(database) as connection:
        assert backup.row_count(connection, images) == 0
        with database.session() as session:
            add_image(session)
        assert backup.row_count(connection, images) == 0
        assert list(backup.rows(connection, images)) == []
        with pytest.raises(DBAPIError, match=r"read-?only"):
            connection.execute(images.delete())
    with backup.snapshot(database) as connection:
        assert backup.filled_tables(connection) == {"images": 1}
        [[row]] = backup.rows(connection, images)
        assert backup.files(connection) == ([(row[2], row[1])], [])


def test_jobs_are_looked_for_and_nothing_is_made(tmp_path: Path, database_url: str) -> None:
    assert not backup.has_jobs(f"sqlite:///{tmp_path / 'none.sqlite'}")
    assert not (tmp_path / "none.sqlite").exists()
    assert not backup.has_jobs(database_url)
    schema = "" if database_url.startswith("sqlite") else "dbos."
    with Database(database_url).session() as session:
        run = session.connection().exec_driver_sql
        if schema:
            run("CREATE SCHEMA dbos")
        run(f"CREATE TABLE {schema}workflow_status (workflow_uuid TEXT)")
    assert not backup.has_jobs(database_url)
    with Database(database_url).session() as session:
        session.connection().exec_driver_sql(f"INSERT INTO {schema}workflow_status VALUES ('turn-6')")
    assert backup.has_jobs(database_url)
    if schema:
        with Database(database_url).session() as session:
            session.connection().exec_driver_sql("DROP SCHEMA dbos CASCADE")
