"""Facts stay: the database refuses to change, delete or replace them, on both engines and by raw SQL."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import migrate, versions
from db.definitions import fingerprint
from db.evaluations import MetricRow, add_evaluation
from db.guards import GUARDS
from db.migrations.versions import v2026_11_26_unattended as newest
from db.models import Base, Forgetting, ForgottenImage, VersionStatus, now
from db.session import Database, make_engine
from tests.builders import add_active_pair, add_cell, add_image, add_prediction, add_version, say

# Machines of states, cursors and queues: what may change.
CHANGING = {
    "training_runs",
    "review_items",
    "projects",
    "tasks",
    "cell_tasks",
    "inbox_events",
    "prediction_requests",
    "workers",
    "run_events",
    "image_stains",
    "api_tokens",
}


def fill(session: Session) -> int:
    """A prediction, an answer and an evaluation; the image's id."""
    pair, image = add_active_pair(session), add_image(session)
    add_prediction(session, image, pair)
    say(session, add_cell(session, image), "ring")
    add_evaluation(session, pair.id, "test", "0" * 64, {"images": 1}, [MetricRow("ap50", 0.5, 3, "ring", 0.4, 0.6)])
    return image.id


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("predictions", "seconds", "1"),
        ("predicted_cells", "label", "'ring'"),
        ("packed_predictions", "count", "0"),
        ("reviews", "expert", "'somebody else'"),
        ("label_revisions", "label", "'schizont'"),
        ("evaluations", "split", "'train'"),
        ("metrics", "value", "0.99"),
        ("promotion_decisions", "promote", "promote"),
        ("images", "split", "'test'"),
        ("model_versions", "weights_sha256", "'0'"),
    ],
)
def test_facts_are_neither_changed_nor_deleted(database: Database, table: str, column: str, value: str) -> None:
    with database.session() as session:
        fill(session)
        for statement in (f"UPDATE {table} SET {column} = {value}", f"DELETE FROM {table}"):
            with pytest.raises(IntegrityError, match=f"{table} are (facts|kept for good)"), session.begin_nested():
                session.execute(text(statement))


def test_a_fact_is_not_replaced(sqlite_database: Database) -> None:
    with sqlite_database.session() as session:
        fill(session)
        columns = [column.name for column in Base.metadata.tables["label_revisions"].columns]
        names = ", ".join(columns)
        values = ", ".join("'ring'" if name == "label" else name for name in columns)
        for key in ("id", "id + 1000 AS id"):  # by its own key, and by another unique one
            statement = f"INSERT OR REPLACE INTO label_revisions ({names}) SELECT {values.replace('id', key, 1)} "
            with pytest.raises(IntegrityError, match="label_revisions are facts"), session.begin_nested():
                session.execute(text(statement + "FROM label_revisions"))


def test_a_table_of_facts_is_not_truncated(database: Database) -> None:
    if database.engine.dialect.name == "sqlite":
        return  # it has no TRUNCATE
    with (
        pytest.raises(IntegrityError, match="metrics are kept for good"),
        database.session() as session,
    ):
        session.execute(text("TRUNCATE metrics"))


def test_what_may_change_changes(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        session.execute(text("UPDATE images SET patient = 'P1', taken_at = :now"), {"now": now()})
        with pytest.raises(IntegrityError, match="images are facts"), session.begin_nested():
            session.execute(text("UPDATE images SET patient = 'P2'"))
        version = add_version(session)
        versions.reject(session, version.id, reasons=["for a test"])
        session.refresh(version)
        session.refresh(image)
        assert (image.patient, version.status) == ("P1", VersionStatus.rejected)


def test_rows_of_a_forgotten_image_may_go_and_no_others(database: Database) -> None:
    with database.session() as session:
        forgotten, kept = fill(session), add_image(session)
        other = add_cell(session, kept)
        say(session, other, "ring")
        tombstone = Forgetting(patient_sha256="0" * 64, reason="asked to", versions=[], removed={})
        session.add(tombstone)
        session.flush()
        row: dict[str, Any] = {"image_id": forgotten, "forgetting_id": tombstone.id, "sha256": "1" * 64, "file": "x"}
        session.add(ForgottenImage(**row))
        session.flush()
        session.execute(text("DELETE FROM current_labels WHERE image_id = :image"), {"image": forgotten})
        gone = session.execute(text("DELETE FROM label_revisions WHERE image_id = :image"), {"image": forgotten})
        assert gone.rowcount == 1  # type: ignore[attr-defined]
        with pytest.raises(IntegrityError, match="label_revisions are kept for good"), session.begin_nested():
            session.execute(text("DELETE FROM label_revisions"))
        tombstone.finished_at = now()
        session.flush()
        for statement in ("UPDATE forgettings SET reason = ''", "DELETE FROM forgettings"):
            with pytest.raises(IntegrityError, match="forgettings are"), session.begin_nested():
                session.execute(text(statement))


def test_every_table_is_guarded_derived_or_known_to_change() -> None:
    derived = {name for name, table in Base.metadata.tables.items() if table.info.get("derived")}
    assert {guard.table for guard in GUARDS} | derived | CHANGING == set(Base.metadata.tables)
    assert not {guard.table for guard in GUARDS} & (derived | CHANGING)


def test_triggers_and_views_change_with_a_revision() -> None:
    """Else a database that is up to date would keep the old ones: write a revision that carries the fingerprint."""
    assert newest.definitions == fingerprint()


def test_dropped_guards_are_missed_and_made_anew(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    assert migrate.missing(empty_url) == []
    engine = make_engine(empty_url)
    on = "" if engine.dialect.name == "sqlite" else " ON reviews"
    with engine.begin() as connection:
        name = "guard_reviews_delete" if on == "" else "guard_reviews"
        connection.execute(text(f"DROP TRIGGER {name}{on}"))
        connection.execute(text("DROP VIEW v_queue"))
    assert migrate.missing(empty_url) == [name, "v_queue"]
    migrate.upgrade(empty_url)
    assert migrate.missing(empty_url) == []
    engine.dispose()
