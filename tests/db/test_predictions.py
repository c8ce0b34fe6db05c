"""Predictions: once per pair and image, with cells that keep their identity."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import predictions, versions
from db.errors import NotFound
from db.models import Cell, ModelPair, Prediction
from db.session import Database
from tests.builders import (
    BOX,
    NOBODY,
    add_active_pair,
    add_image,
    add_prediction,
    add_review,
    add_version,
    cell_row,
    say,
)

OTHER_BOX = (100.0, 100.0, 140.0, 140.0)


def next_pair(session: Session) -> ModelPair:
    """A new `infected` takes over: another pair predicts from now on."""
    versions.activate(session, add_version(session).id, kind="person", reasons=[])
    pair = versions.active_pair(session)
    assert pair is not None
    return pair


def keys(session: Session, prediction: Prediction) -> list[str]:
    return [key for _, key in predictions.predicted_cells(session, prediction.id)]


def test_a_prediction_is_stored_once_per_pair_and_image(database: Database) -> None:
    with database.session() as session:
        image, pair = add_image(session), add_active_pair(session)
        first = add_prediction(session, image, pair, [BOX])
    with database.session() as session:
        again = add_prediction(session, image, pair, [BOX, OTHER_BOX])
        assert again.id == first.id
        assert len(keys(session, again)) == 1
        assert predictions.get_prediction(session, image.id, pair.id) is again
        assert predictions.by_id(session, first.id) is again


def test_everything_about_a_cell_is_kept_and_not_a_number_means_not_seen(database: Database) -> None:
    row = cell_row(
        np.array([1, 2, 30, 40], dtype=np.float32),  # type: ignore[arg-type]
        "ring",
        score=np.float32(0.5),
        probabilities=np.array([0.25, 0.5, 0, 0, 0, 0], dtype=np.float32),
        score_all_cells=np.float32("nan"),
        score_infected=np.float32(0.75),
        source="infected",
        pair_iou=np.float32("nan"),
        disputed=np.bool_(True),
        mask=b"counts",
    )
    with database.session() as session:
        image, pair = add_image(session), add_active_pair(session)
        stored = predictions.add_prediction(session, image.id, pair.id, [row], seconds=1.5)
    with database.session() as session:
        ((cell, key),) = predictions.predicted_cells(session, stored.id)
        assert (cell.x1, cell.y1, cell.x2, cell.y2) == (1, 2, 30, 40)
        assert (cell.label, cell.score, cell.probabilities) == ("ring", 0.5, [0.25, 0.5, 0, 0, 0, 0])
        assert (cell.score_all_cells, cell.score_infected, cell.pair_iou) == (None, 0.75, None)
        assert (cell.source, cell.disputed, cell.mask, len(key)) == ("infected", True, b"counts", 10)


def test_a_new_models_cells_keep_their_keys(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        old = add_prediction(session, image, add_active_pair(session), [BOX, OTHER_BOX])
        new = add_prediction(session, image, next_pair(session), [(300, 1, 340, 41), (104, 100, 144, 140), BOX])
        left, right = keys(session, old)
        assert keys(session, new)[1:] == [right, left]
        assert keys(session, new)[0] not in (left, right)
        assert session.scalar(select(func.count()).select_from(Cell)) == 3


def test_a_cell_is_looked_for_where_the_expert_put_it(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        old = add_prediction(session, image, add_active_pair(session), [BOX])
        ((predicted, key),) = predictions.predicted_cells(session, old.id)
        cell = session.get_one(Cell, predicted.cell_id)
        say(session, cell, "ring", box=OTHER_BOX, action="moved")
        new = add_prediction(session, image, next_pair(session), [BOX, OTHER_BOX])
        assert keys(session, new)[1] == key
        assert keys(session, new)[0] != key


def test_a_rejected_cell_is_recognised_when_the_next_model_errs_again(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        old = add_prediction(session, image, add_active_pair(session), [BOX])
        ((predicted, key),) = predictions.predicted_cells(session, old.id)
        say(session, session.get_one(Cell, predicted.cell_id), None)
        assert keys(session, add_prediction(session, image, next_pair(session), [BOX])) == [key]


def test_two_workers_predicting_the_same_images_agree(database: Database) -> None:
    with database.session() as session:
        pairs = [add_active_pair(session), next_pair(session)]
        targets = [add_image(session) for _ in range(4)]

    def predict(worker: int) -> list[int]:
        found = []
        for image in targets:
            with database.session() as session:
                found.append(add_prediction(session, image, pairs[worker // 2], [BOX, OTHER_BOX]).id)
        return found

    with ThreadPoolExecutor(4) as pool:
        one, two, three, four = pool.map(predict, range(4))
    assert one == two
    assert three == four
    assert not set(one) & set(three)
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(Cell)) == 2 * len(targets)


def test_an_empty_prediction_is_a_prediction(database: Database) -> None:
    with database.session() as session:
        image, pair = add_image(session), add_active_pair(session)
        assert predictions.predicted_cells(session, add_prediction(session, image, pair, []).id) == []
        assert predictions.missing(session, pair.id) == []


def test_what_cannot_be_a_cell_is_refused(database: Database) -> None:
    with database.session() as session:
        image, pair = add_image(session), add_active_pair(session)
    with pytest.raises(IntegrityError), database.session() as session:
        add_prediction(session, image, pair, [(10, 10, 10, 20)])
    with pytest.raises(IntegrityError), database.session() as session:
        add_prediction(session, image, pair, source="nobody")
    with pytest.raises(NotFound), database.session() as session:
        predictions.add_prediction(session, NOBODY, pair.id, [], seconds=0)
    with database.session() as session:
        assert predictions.missing(session, pair.id) == [session.merge(image)]


def test_missing_are_pool_images_this_pair_has_not_seen_asked_for_first(database: Database) -> None:
    with database.session() as session:
        pair = add_active_pair(session)
        first, second, third, seen, reviewed = (add_image(session) for _ in range(5))
        add_image(session, split="test")
        add_prediction(session, seen, pair)
        add_review(session, reviewed)
        predictions.request(session, third.id)
        assert predictions.missing(session, pair.id) == [third, first, second]
        assert set(predictions.by_pair(session, pair.id)) == {seen.id}
        newer = next_pair(session)
        assert predictions.missing(session, newer.id) == [third, first, second, seen]


def test_the_newest_prediction_is_that_of_the_last_pair(database: Database) -> None:
    with database.session() as session:
        image = add_image(session)
        assert predictions.newest_prediction(session, image.id) is None
        add_prediction(session, image, add_active_pair(session))
        newer = add_prediction(session, image, next_pair(session))
        assert predictions.newest_prediction(session, image.id) is newer


def test_requests_wait_once_and_in_order(database: Database) -> None:
    with database.session() as session:
        first, second = add_image(session), add_image(session)
        assert predictions.request(session, second.id)
        assert predictions.request(session, first.id)
        assert not predictions.request(session, second.id)
        assert predictions.requests(session) == [second, first]
        predictions.fulfil(session, second.id)
        predictions.fulfil(session, second.id)
        assert predictions.requests(session) == [first]


def test_the_predictions_of_an_image_newest_first(database: Database) -> None:
    with database.session() as session:
        image, other = add_image(session), add_image(session)
        first = add_active_pair(session)
        versions.activate(session, add_version(session).id, kind="gate", reasons=["better"])
        second = versions.active_pair(session)
        assert second is not None
        made = [add_prediction(session, image, pair) for pair in (first, second)]
        add_prediction(session, other, first)
        assert predictions.of_image(session, image.id) == [(made[1], second), (made[0], first)]
        assert predictions.of_image(session, image.id, most=1) == [(made[1], second)]
