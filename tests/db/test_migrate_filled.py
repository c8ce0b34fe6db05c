"""Migrations of a filled record: back to each earlier revision and forward again, and no label is lost on the way."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from db import migrate
from db.session import Database, make_engine
from tests.made_history import make_history

# What every revision since the first has a place for.
KEPT = {
    "images": "id, sha256, file, name, width, height, split, dataset, created_at",
    "cells": "id, image_id, key, created_at",
    "model_versions": "id, role, status, weights_sha256, manifest, manifest_sha256, created_at",
    "predictions": "id, image_id, pair_id, seconds, created_at",
    "predicted_cells": "id, prediction_id, cell_id, label, score, probabilities, source, disputed",
    "reviews": "id, thread, sequence, image_id, status, expert, revised_at, lead_time_s, content",
    "label_revisions": "id, review_id, thread, cell_id, image_id, predicted_cell_id, action, label, x1, y1, decided_at",
}
DERIVED = (
    "current_labels",
    "(SELECT * FROM label_counts WHERE cells > 0) AS counted",
    "predicted_counts",
    "training_images",
)


def revisions() -> list[str]:
    """All revisions, oldest first."""
    scripts = ScriptDirectory.from_config(migrate._config(""))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def rows(connection: Connection, table: str, columns: str = "*") -> list[Any]:
    """A table's rows as the database has them."""
    return [tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2"))]


@pytest.fixture
def filled(empty_url: str) -> str:
    """A record at the newest revision with the history made by hand."""
    migrate.upgrade(empty_url)
    database = Database(empty_url)
    with database.session() as session:
        make_history(session)
    database.dispose()
    return empty_url


def test_back_to_every_revision_and_forward_again_with_all_labels(filled: str) -> None:
    engine = make_engine(filled)
    with engine.connect() as connection:
        facts = {table: rows(connection, table, columns) for table, columns in KEPT.items()}
        followed = {table: rows(connection, table) for table in DERIVED}
    assert all(facts.values())
    assert all(followed.values())
    for revision in revisions()[:-1][::-1]:
        engine.dispose()
        migrate.downgrade(filled, revision)
        with engine.connect() as connection:
            assert {table: rows(connection, table, columns) for table, columns in KEPT.items()} == facts
        engine.dispose()
        migrate.upgrade(filled)
        with engine.connect() as connection:
            assert {table: rows(connection, table, columns) for table, columns in KEPT.items()} == facts
            assert {table: rows(connection, table) for table in DERIVED} == followed, revision
    with pytest.raises(IntegrityError, match="are kept for good"), engine.begin() as connection:
        connection.execute(text("DELETE FROM label_revisions"))
    engine.dispose()


def test_a_migration_that_fails_changes_nothing(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from db import definitions

    newest = migrate.head()
    migrate.downgrade(filled, revisions()[-2])
    engine = make_engine(filled)
    with engine.connect() as connection:
        facts = {table: rows(connection, table, columns) for table, columns in KEPT.items()}

    def fail(connection: Connection) -> None:
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(definitions, "create", fail)
        with pytest.raises(RuntimeError, match="the disk is full"):
            migrate.upgrade(filled)
    assert migrate.current(filled) == revisions()[-2]
    with engine.connect() as connection:
        assert {table: rows(connection, table, columns) for table, columns in KEPT.items()} == facts
    engine.dispose()
    migrate.upgrade(filled)
    assert migrate.current(filled) == newest
