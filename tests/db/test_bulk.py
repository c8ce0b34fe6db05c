"""Rows in bulk: as they were given, on both engines, or refused; and all that follows from them."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text

from db.bulk import insert_rows, loading
from db.errors import RowsRefused
from db.images import by_sha256
from db.models import Base, Cell, Image, Import, PackedPrediction
from db.session import Database
from tests.builders import NOBODY, add_active_pair, add_cell, add_image, add_prediction, at, say, sha256

PECULIAR = "tab\t newline\n backslash\\N \\. quote'\" 🦟"
IMAGES, CELLS = Base.metadata.tables["images"], Base.metadata.tables["cells"]


def image_row(number: int, name: str = PECULIAR, **changes: Any) -> tuple[Any, ...]:
    row = {
        "id": number, "sha256": sha256(number), "file": "x", "name": name, "width": 4, "height": 3, "group": "g",
        "split": "train", "dataset": "d", "created_at": at(number).astimezone(timezone(timedelta(hours=-7))),
    }  # fmt: skip
    return tuple((row | changes).get(column.name) for column in IMAGES.columns)


def test_every_value_comes_back_as_it_was(database: Database) -> None:
    report = '{"ä": [1e-7, null], "tab": "\\t\\\\"}'
    bytes_ = bytes(range(256)) * 3
    with database.session() as session:
        pair, image = add_active_pair(session), add_image(session)
        prediction = add_prediction(session, image, pair)
        other = add_prediction(session, add_image(session), pair).id + 1
        connection = session.connection()
        count = insert_rows(connection, IMAGES, [[image_row(n) for n in (101, 102)], [], [image_row(103)]])
        assert count == 3
        imports = Base.metadata.tables["imports"]
        assert insert_rows(connection, imports, [[(7, PECULIAR, "d", report, at(1))]]) == 1
        predictions, packed = Base.metadata.tables["predictions"], Base.metadata.tables["packed_predictions"]
        insert_rows(connection, predictions, [[(other, 103, pair.id, 0.1 + 0.2, at(2))]])
        insert_rows(connection, packed, [[(other, 0, bytes_, None)]])
    with database.session(read_only=True) as session:
        found = by_sha256(session, sha256(102))
        assert found is not None
        assert (found.id, found.name, found.split, found.created_at, found.patient) == (
            102,
            PECULIAR,
            "train",
            at(102),
            None,
        )
        assert session.get_one(Import, 7).report == {"ä": [1e-7, None], "tab": "\t\\"}
        kept = session.get_one(PackedPrediction, other)
        assert (kept.cells, kept.embeddings) == (bytes_, None)
        assert session.scalar(text(f"SELECT seconds FROM predictions WHERE id = {other}")) == 0.1 + 0.2
        assert session.get_one(Image, prediction.image_id).id == image.id


@pytest.mark.parametrize(
    "rows",
    [
        [(1, NOBODY, "a", at(0))],
        [(1, None, "a", at(0))],
        [(1, 1, "a", at(0)), (2, 1, "a", at(0))],
    ],
    ids=["nobody's", "nothing", "twice"],
)
def test_rows_that_break_a_rule_are_refused_in_one_line(database: Database, rows: list[tuple[Any, ...]]) -> None:
    with database.session() as session:
        insert_rows(session.connection(), IMAGES, [[image_row(1)]])
    refused = pytest.raises(RowsRefused, match=r"^cells: expected rows that the database takes, it says: [^\n]+$")
    with refused, database.session() as session:
        insert_rows(session.connection(), CELLS, [rows])
    with database.session(read_only=True) as session:
        assert session.query(Cell).count() == 0


def kept_by_triggers(database: Database) -> dict[str, set[tuple[Any, ...]]]:
    with database.session(read_only=True) as session:
        derived = [table for table in Base.metadata.sorted_tables if table.info.get("derived")]
        return {t.name: {tuple(row) for row in session.execute(t.select()) if row[-1] != 0} for t in derived}


def test_what_follows_is_the_same_with_and_without_the_triggers(database: Database) -> None:
    with database.session() as session:
        pair, image = add_active_pair(session), add_image(session)
        add_prediction(session, image, pair, ((0, 0, 9, 9), (50, 50, 90, 90)))
        cells = [add_cell(session, image) for _ in range(4)]
        said = [
            (0, "ring", "a", None),
            (1, "ring", "a", None),
            (2, "schizont", "a", None),
            (3, "ring", "a", None),
            (0, "trophozoite", "b", None),
            (1, None, "b", None),
            (2, None, "a", "withdrawn"),
            (0, None, "b", "withdrawn"),
        ]
        for number, (cell, label, thread, action) in enumerate(said):
            say(session, cells[cell], label, thread, minute=-number, action=action)
    followed = kept_by_triggers(database)
    assert {table: len(rows) for table, rows in followed.items()} == {
        "current_labels": 3, "label_counts": 1, "predicted_counts": 1,
    }  # fmt: skip
    with database.session() as session, loading(session.connection()):
        session.connection().exec_driver_sql("UPDATE current_labels SET label = 'wrong'")
        session.connection().exec_driver_sql("DELETE FROM predicted_counts")
    assert kept_by_triggers(database) == followed
    with pytest.raises(Exception, match="are facts"), database.session() as session:
        session.query(Image).update({"name": "changed"})


def test_a_load_that_fails_leaves_the_triggers_in_place(database: Database) -> None:
    with pytest.raises(RowsRefused), database.session() as session, loading(session.connection()):
        insert_rows(session.connection(), CELLS, [[(1, NOBODY, "a", at(0))]])
    with database.session() as session:
        add_image(session)
    with pytest.raises(Exception, match="are facts"), database.session() as session:
        session.query(Image).update({"name": "changed"})
