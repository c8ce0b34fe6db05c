"""Packed predictions: the same cells as the rows, in columns."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import select

from db import predictions
from db.errors import RecordError
from db.migrate import downgrade, upgrade
from db.models import Cell, PackedPrediction, Way
from db.packed import embeddings, unpack
from db.pool import answered_cells, image_cells, reviewed_cells, waiting_images
from db.session import Database
from tests.builders import add_active_pair, add_image, add_review, cell_row, say

BOXES = [(10.0, 10.0, 50.0, 50.0), (100.0, 10.0, 140.0, 50.0)]


def rows(**changes: object) -> list[predictions.CellRow]:
    first = cell_row(BOXES[0], **changes)
    return [first, cell_row(BOXES[1], "ring", score_infected=None, pair_iou=None, disputed=True, **changes)]


def test_packed_cells_say_what_the_rows_say(database: Database) -> None:
    with database.session() as session:
        pair, image = add_active_pair(session), add_image(session)
        vector = np.array([0.6, 0.8], dtype=np.float32)
        stored = predictions.add_prediction(session, image.id, pair.id, rows(code=7, embedding=vector), 0.1)
        empty = add_image(session)
        nothing = predictions.add_prediction(session, empty.id, pair.id, [], 0.1)
        packed = image_cells(session, pair.id, image.id)
        cells = [cell for cell, _ in predictions.predicted_cells(session, stored.id)]
        assert packed.image.tolist() == [image.id] * 2
        assert packed.cells["predicted_cell_id"].tolist() == [cell.id for cell in cells]
        assert packed.cells["cell_id"].tolist() == [cell.cell_id for cell in cells]
        assert packed.cells["probabilities"].tolist() == [pytest.approx(cell.probabilities) for cell in cells]
        assert packed.cells["score_infected"][0] == pytest.approx(0.1)
        assert np.isnan(packed.cells["score_infected"][1])
        assert np.isnan(packed.cells["pair_iou"][1])
        assert packed.cells["disputed"].tolist() == [False, True]
        assert packed.cells["code"].tolist() == [7, 7]
        assert len(image_cells(session, pair.id, empty.id)) == 0
        found = embeddings(session, [stored.id, nothing.id])
        assert found.keys() == {stored.id}
        assert found[stored.id] == pytest.approx(np.stack([vector, vector]), abs=1e-3)


def test_an_embedding_for_some_cells_only_is_refused(database: Database) -> None:
    half = [cell_row(BOXES[0], embedding=np.ones(2, dtype=np.float32)), rows()[1]]
    with database.session() as session:
        pair, image = add_active_pair(session), add_image(session)
        with pytest.raises(RecordError, match="each of 2 cells or for none, got 1"):
            predictions.add_prediction(session, image.id, pair.id, half, 0.1)


def test_the_pool_is_read_with_its_slides_and_what_was_reviewed(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        one, two, done = (add_image(session, group=group) for group in ("slide b", "slide a", "slide b"))
        for image in (one, two, done):
            predictions.add_prediction(session, image.id, pair.id, rows(code=3), 0.1)
        add_review(session, done)
        cells = image_cells(session, pair.id, one.id).cells["cell_id"].tolist()
        waiting = waiting_images(session, pair.id)
        assert waiting.ids.tolist() == [one.id, two.id]
        assert waiting.slides.tolist() == [1, 0]
        assert waiting.cells.image.tolist() == [one.id] * 2 + [two.id] * 2
        assert answered_cells(session, pair.id).image.tolist() == [done.id] * 2
        assert reviewed_cells(session).tolist() == []
        answered = session.get_one(Cell, cells[1])
        say(session, answered, "ring", "ls:2:1", way=Way.cell)
        assert reviewed_cells(session).tolist() == [cells[1]]
        assert waiting_images(session, pair.id).ids.tolist() == [one.id, two.id], "the rest of its field still waits"
        say(session, answered, None, "ls:2:1", 1, "withdrawn", way=Way.cell)
        assert reviewed_cells(session).tolist() == []


def test_predictions_made_before_are_packed_by_the_migration(database: Database) -> None:
    with database.session() as session:
        pair, image = add_active_pair(session), add_image(session)
        predictions.add_prediction(session, image.id, pair.id, rows(), 0.1)
        predictions.add_prediction(session, add_image(session).id, pair.id, [], 0.1)
        before = session.execute(select(PackedPrediction.count, PackedPrediction.cells)).all()
    database.dispose()
    url = database.url
    downgrade(url, "2026_11_23_runs")
    upgrade(url)
    with database.session() as session:
        after = session.execute(select(PackedPrediction.count, PackedPrediction.cells)).all()
    assert [tuple(row) for row in after] == [tuple(row) for row in before]


def test_no_predictions_are_no_cells() -> None:
    packed = unpack([(1, 0, b"")])
    assert len(packed) == 0
    assert packed.image.dtype == np.int64
