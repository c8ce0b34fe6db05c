"""The record as plain rows: every column of every table has a kind, and what is left out follows from the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Interval, MetaData, Table

from db import backup
from db.ids import HIGHEST
from db.models import Base, Forgetting
from db.session import Database
from tests.builders import add_image


def test_every_column_has_a_kind_and_facts_come_after_what_they_refer_to() -> None:
    tables = backup.kept_tables()
    assert len(tables) >= 25
    for table in tables:
        kinds = {column.name: backup.kind_of(column) for column in table.columns}
        assert set(backup.table_of(table.name, kinds).columns.keys()) == set(table.columns.keys())
        before = {known.name for known in tables[: tables.index(table)]}
        assert {key.column.table.name for key in table.foreign_keys} - {table.name} <= before  # its own: by number
    left_out = Base.metadata.tables.keys() - {table.name for table in tables}
    assert left_out == {"current_labels", "label_counts", "predicted_counts"}


def test_an_unknown_type_is_not_guessed() -> None:
    with pytest.raises(TypeError, match=r"t\.span: expected a type that db/backup\.py knows"):
        backup.kind_of(Table("t", MetaData(), Column("span", Interval)).columns.span)


def test_rows_are_read_in_their_order_while_others_write(database: Database) -> None:
    images = Base.metadata.tables["images"]
    with database.session() as session:
        first = add_image(session)
    with database.session(read_only=True) as reading:
        connection = reading.connection()
        assert backup.row_count(connection, images) == 1
        with database.session() as session:
            add_image(session)
        [[row]] = backup.rows(connection, images)
        assert tuple(row)[:4] == (first.id, first.sha256, first.file, first.name)
        assert backup.filled_tables(connection) == {"images": 1}
        assert backup.files(connection) == ([(first.file, first.sha256)], [])
    with database.session(read_only=True) as session:
        assert backup.filled_tables(session.connection()) == {"images": 2}


def test_new_rows_come_after_restored_and_forgotten_ones(database: Database) -> None:
    with database.session() as session:
        kept = add_image(session).id
        gone = kept + 50
        removed = {HIGHEST: {"images": gone}}
        session.add(Forgetting(patient_sha256="0" * 64, reason="asked to", versions=[], removed=removed))
        session.flush()
        backup.count_on(session.connection(), ["images", "forgettings"])
        assert add_image(session).id == gone + 1


def test_jobs_are_looked_for_and_nothing_is_made(tmp_path: Path, empty_url: str) -> None:
    assert not backup.has_jobs(f"sqlite:///{tmp_path / 'none.sqlite'}")
    assert not (tmp_path / "none.sqlite").exists()
    assert not backup.has_jobs(empty_url)
    database = Database(empty_url)
    schema = "" if empty_url.startswith("sqlite") else "dbos."
    with database.session() as session:
        run = session.connection().exec_driver_sql
        if schema:
            run("CREATE SCHEMA dbos")
        run(f"CREATE TABLE {schema}workflow_status (workflow_uuid TEXT)")
    assert not backup.has_jobs(empty_url)
    with database.session() as session:
        session.connection().exec_driver_sql(f"INSERT INTO {schema}workflow_status VALUES ('turn-6')")
    assert backup.has_jobs(empty_url)
    database.dispose()
