import json
from typing import Any

import pytest
from sqlalchemy.orm import Session

from al_loop.acquisition import DOUBTS
from al_loop.rank import RankConfig, rank
from backend.errors import NoTrainedModel
from backend.instances import CLASS_INDEX, CLASSES
from db import images, predictions, queue
from db.models import Cell, ItemStatus, ModelPair, Ranking
from db.runs import MetricRow, add_evaluation
from db.session import Database
from tests import builders


def box(number: int) -> tuple[float, float, float, float]:
    """The place of the n-th cell of an image."""
    return (number * 50.0, 10.0, number * 50.0 + 40.0, 50.0)


def cell(number: int, label: str = "red blood cell", **changes: Any) -> predictions.CellRow:
    """A certain cell of this class, unless changed."""
    row = {
        "probabilities": distribution({label: 0.99}),
        "score_all_cells": 0.99,
        "score_infected": None,
        "source": "all_cells",
        "pair_iou": None,
    }
    return builders.cell_row(box(number), label, **{**row, **changes})


def disputed(number: int) -> predictions.CellRow:
    """A cell that is red for one model and a ring for the other."""
    return cell(
        number,
        "ring",
        probabilities=distribution({"ring": 0.6, "red blood cell": 0.3}),
        score_all_cells=0.9,
        score_infected=0.8,
        source="both",
        pair_iou=0.9,
        disputed=True,
    )


def distribution(known: dict[str, float]) -> list[float]:
    """Probabilities in the order of CLASSES."""
    return [known.get(name, 0.0) for name in CLASSES]


def predict(session: Session, pair: ModelPair, *rows: predictions.CellRow, **image: Any) -> int:
    """A new image with this prediction; its id."""
    added = builders.add_image(session, **image)
    predictions.add_prediction(session, added.id, pair.id, rows, 0.1)
    return added.id


def test_without_models_there_is_nothing_to_rank(database: Database) -> None:
    with pytest.raises(NoTrainedModel, match="cellloop train"):
        rank(database)


def test_doubtful_images_come_first_with_every_term_and_reason(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        quiet = predict(session, pair, *[cell(number) for number in range(8)])
        doubtful = predict(session, pair, cell(0), disputed(1))
        empty = predict(session, pair)
        builders.add_image(session)  # not predicted: does not wait
        predict(session, pair, disputed(0), split="test")  # the ruler is never queued
    summary = rank(database)
    assert (summary.images, summary.cells, summary.doubtful) == (3, 10, 1)
    with database.session() as session:
        waiting = queue.pending(session)
        assert [item.image_id for item in waiting] == [doubtful, *sorted((quiet, empty))]
        first = waiting[0]
        assert first.score == pytest.approx(first.terms["value"] / first.terms["seconds"])
        [ranked] = queue.ranked_cells(session, summary.ranking_id)
        assert first.terms["best_cells"] == [ranked.predicted_cell_id]
        assert first.terms["reasons"] == [ranked.reason]
        assert ranked.score == pytest.approx(ranked.terms["doubt"] * ranked.terms["weight"])
        assert set(ranked.terms) == {*DOUBTS, "doubt", "weight", "probabilities"}
        assert ranked.reason.startswith("The two models disagree")
        prediction = predictions.get_prediction(session, doubtful, pair.id)
        assert list(queue.reasons(session, prediction.id).values()) == [(ranked.score, ranked.reason)]


def test_ranking_again_replaces_the_queue_and_leaves_out_reviewed_images(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        first = predict(session, pair, disputed(0))
        second = predict(session, pair, disputed(0), disputed(1))
    rank(database)
    with database.session() as session:
        builders.add_review(session, images.get(session, second))
    summary = rank(database)
    with database.session() as session:
        waiting = queue.pending(session)
        assert [item.image_id for item in waiting] == [first]
        assert waiting[0].ranking_id == summary.ranking_id
        assert waiting[0].status == ItemStatus.pending


def test_a_cell_once_called_difficult_comes_back_for_a_second_reading(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        image_id = predict(session, pair, cell(0), cell(1))
        prediction = predictions.get_prediction(session, image_id, pair.id)
        called = predictions.predicted_cells(session, prediction.id)[1][0].cell_id
        builders.say(session, session.get_one(Cell, called), "difficult")
    assert rank(database).images == 0
    with database.session() as session:
        builders.add_review(session, images.get(session, image_id), minute=1, status="withdrawn")
    summary = rank(database)
    with database.session() as session:
        [item] = queue.pending(session)
        assert item.terms["second_reading"] is True
        [ranked] = queue.ranked_cells(session, summary.ranking_id)
        assert ranked.terms["difficult"] == 1
        assert ranked.reason == "An expert could not decide: please read again"


def test_labelled_counts_and_measured_ap_weigh_the_classes(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        predict(session, pair, disputed(0))
    plain = rank(database)
    with database.session() as session:
        rows = [MetricRow("ap50", 0.1, 20, "ring"), MetricRow("ap50", None, 0, "leukocyte")]
        add_evaluation(session, pair.id, "test", "0" * 64, {}, rows)
    informed = rank(database)
    with database.session() as session:
        weights = [session.get_one(Ranking, each.ranking_id).config["class_weights"] for each in (plain, informed)]
    ring = CLASS_INDEX["ring"]
    assert weights[1][ring] < weights[0][ring]  # no evaluation counts as AP 0, the measured 0.1 is better than that
    without = rank(database, config=RankConfig(use_ap=False))
    with database.session() as session:
        assert session.get_one(Ranking, without.ranking_id).config["class_weights"] == weights[0]


def test_the_summary_is_plain_json(database: Database) -> None:
    with database.session() as session:
        predict(session, builders.add_active_pair(session), disputed(0))
    summary = rank(database).to_json()
    assert json.loads(json.dumps(summary))["images"] == 1
