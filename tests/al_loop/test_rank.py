import json
import math
from typing import Any

import pytest
from sqlalchemy.orm import Session

from al_loop.acquisition import DOUBTS
from al_loop.batch import BatchConfig
from al_loop.rank import RankConfig, rank
from al_loop.rerank import worth
from backend.errors import NoTrainedModel
from backend.instances import CLASS_INDEX, CLASSES
from db import assignments, images, predictions, queue
from db.evaluations import MetricRow, add_evaluation
from db.models import Cell, ItemStatus, ModelPair, PredictedCell, Ranking, ReviewItem, Slot, Way
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
        assert ranked.score == pytest.approx(worth(ranked.terms))
        assert set(ranked.terms) == {*DOUBTS, "doubt", "weight", "confirm", "probabilities"}
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


def review_one(session: Session, item: ReviewItem, label: str = "ring", minute: float = 0) -> None:
    """An expert answers one cell by itself."""
    cell = session.get_one(Cell, item.cell_id)
    builders.say(session, cell, label, f"ls:2:{item.id}", minute, way=Way.cell)
    queue.close_cell(session, cell.id, "done")


def test_fields_and_cells_wait_side_by_side_with_their_slots_and_terms(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(12):
            predict(session, pair, *[cell(number) for number in range(5)], disputed(5), disputed(6))
    config = RankConfig(batch=BatchConfig(size=16))
    summary = rank(database, config=config)
    assert sum(summary.waiting.values()) == 16
    assert summary.left_out > 0
    with database.session() as session:
        waiting = queue.pending(session)
        fields = {item.image_id for item in waiting if item.way == Way.field}
        singles = [item for item in waiting if item.way == Way.cell]
        assert fields
        assert singles
        assert not fields & {item.image_id for item in singles}
        assert {item.slot for item in waiting} == {Slot.acquisition, Slot.random}
        for item in waiting:
            assert item.score == pytest.approx(item.terms["value"] / item.terms["seconds"])
            assert math.isfinite(item.score)
        for item in singles:
            stored = session.get_one(PredictedCell, item.predicted_cell_id)
            assert stored.cell_id == item.cell_id
            if item.slot == Slot.random:
                assert item.reason.startswith("Drawn at random")
                continue
            terms = item.terms["cell"]
            assert item.terms["value"] == pytest.approx(worth(terms))
            assert item.reason.startswith("The two models disagree")
        assert sum(item.slot == Slot.random for item in waiting) == 2


def test_what_was_reviewed_alone_is_not_asked_again_and_random_items_stay(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(6):
            predict(session, pair, *[cell(number) for number in range(6)], disputed(6))
    rank(database)
    with database.session() as session:
        chosen = [i for i in queue.pending(session, Way.cell) if i.slot == Slot.acquisition]
        drawn = {i.cell_id for i in queue.pending(session, Way.cell) if i.slot == Slot.random}
        review_one(session, chosen[0])
        gone = chosen[0].cell_id
    rank(database)
    with database.session() as session:
        waiting = queue.pending(session, Way.cell)
        asked = [item for item in waiting if item.cell_id == gone]
        assert [(item.slot, item.terms["kind"]) for item in asked] == [(Slot.second_reading, "agreement")]
        assert drawn - {gone} <= {item.cell_id for item in waiting if item.slot == Slot.random}


def test_a_difficult_cell_goes_to_a_second_reader_only(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(4):
            predict(session, pair, cell(0), disputed(1))
    rank(database)
    with database.session() as session:
        [first, *_] = [i for i in queue.pending(session, Way.cell) if i.slot == Slot.acquisition]
        review_one(session, first, "difficult")
        cell_id = first.cell_id
    rank(database)
    with database.session() as session:
        [item] = [i for i in queue.pending(session, Way.cell) if i.slot == Slot.second_reading]
        assert (item.cell_id, item.readers, item.terms["kind"]) == (cell_id, ["ada@example.org"], "difficult")
        for expert in ("ada@example.org", "ben@example.org"):
            taken = []
            while (got := assignments.take(session, expert)) is not None:
                taken.append(got)
                queue._set_status(got, ItemStatus.superseded)
                session.flush()
            assert (item in taken) == (expert == "ben@example.org")


def test_ranking_a_pool_twice_the_same_way_gives_the_same_batch(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(8):
            predict(session, pair, *[disputed(number) for number in range(3)])
    config = RankConfig(batch=BatchConfig(size=10, random_share=0))
    batches = []
    for _ in range(2):
        rank(database, config=config)
        with database.session() as session:
            batches.append([(i.id, i.way, i.cell_id, i.score) for i in queue.pending(session)])
    assert batches[0] == batches[1]


def test_the_seconds_experts_take_are_learned_and_decide_between_the_ways(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        builders.add_projects(session)
        for _ in range(10):
            predict(session, pair, *[cell(number) for number in range(4)], disputed(4))
    first = rank(database)
    with database.session() as session:
        believed = session.get_one(Ranking, first.ranking_id).config["acquisition"]
        for number in range(60):
            image = builders.add_image(session)
            stored = predictions.add_prediction(session, image.id, pair.id, [cell(n) for n in range(9)], 0.1)
            looked = {"prediction_id": stored.id, "lead_time_s": 6.0}
            builders.add_review(session, image, f"ls:1:{number}", **looked)
            builders.add_review(session, image, f"ls:2:{number}", way=Way.cell, lead_time_s=30.0)
    second = rank(database)
    with database.session() as session:
        learned = session.get_one(Ranking, second.ranking_id).config["acquisition"]
        assert learned["seconds_per_crop"] > 5 * believed["seconds_per_crop"]
        seconds = learned["seconds_per_image"] + 9 * learned["seconds_per_cell"]
        assert seconds == pytest.approx(6, rel=0.15)
        best = queue.pending(session)[0]
        assert best.way == Way.field, "a field is read faster than a crop here"
