"""Answers: the active pair and stored predictions of many images, in few statements, on both engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event

from db import predictions, projects, queue, versions
from db.answers import answers, images_by_sha256, images_of_tasks, serving_pair
from db.chunks import SIZE
from db.session import Database
from tests import builders

FAR = (100.0, 100.0, 140.0, 140.0)


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def test_no_pair_before_both_roles_serve(database: Database) -> None:
    with database.session() as session:
        assert serving_pair(session) is None
        version = builders.add_version(session, "all_cells")
        versions.activate(session, version.id, kind="first", reasons=["only one"])
        assert serving_pair(session) is None


def test_the_serving_pair_follows_a_promotion(database: Database) -> None:
    with database.session() as session:
        first = builders.add_active_pair(session)
        found = serving_pair(session)
        assert found is not None
        assert (found.id, found.name) == (first.id, first.name)
        better = builders.add_version(session, "infected")
        versions.activate(session, better.id, kind="gate", reasons=["better"])
        assert serving_pair(session) is None, "no row names this pair yet"
        second = versions.active_pair(session, {"match_iou": 0.5})
        found = serving_pair(session)
        assert second is not None
        assert found is not None
        assert (found.id, found.all_cells_id, found.infected_id) == (second.id, first.all_cells_id, better.id)
        assert found.infected_sha256 == better.weights_sha256
        assert found.fusion == {"match_iou": 0.5}


def test_answers_hold_cells_in_order_with_reason_and_priority(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        ranked, plain, unseen = (builders.add_image(session) for _ in range(3))
        prediction = builders.add_prediction(session, ranked, pair, [builders.BOX, FAR], label="ring")
        builders.add_prediction(session, plain, pair, [])
        cell_ids = [cell.id for cell, _ in predictions.predicted_cells(session, prediction.id)]
        for reason in ("an old reason", "the models disagree"):
            ranking = queue.add_ranking(session, pair.id, {})
            queue.add_ranked_cells(session, ranking.id, [queue.CellRank(cell_ids[1], 0.7, {"margin": 0.7}, reason)])
        queue.replace_queue(session, ranking.id, [queue.QueueEntry(ranked.id, 2.5, {"cells": 2.5})])

        found = answers(session, pair.id, [ranked.id, plain.id, unseen.id, ranked.id])

        assert set(found) == {ranked.id, plain.id}
        answer = found[ranked.id]
        assert (answer.prediction_id, answer.priority) == (prediction.id, 2.5)
        assert [cell.box for cell in answer.cells] == [builders.BOX, FAR]
        assert [cell.reason for cell in answer.cells] == ["", "the models disagree"]
        assert {(cell.label, cell.score) for cell in answer.cells} == {("ring", 0.9)}
        assert len({cell.key for cell in answer.cells}) == 2
        assert (found[plain.id].priority, found[plain.id].cells) == (0.0, [])


def test_another_pairs_prediction_is_no_answer(database: Database) -> None:
    with database.session() as session:
        old = builders.add_active_pair(session)
        image = builders.add_image(session)
        builders.add_prediction(session, image, old)
        version = builders.add_version(session, "infected")
        new = versions.pair_of(session, old.all_cells_id, version.id)
        assert answers(session, new.id, [image.id]) == {}


def test_a_closed_review_item_gives_no_priority(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        image = builders.add_image(session)
        builders.add_prediction(session, image, pair)
        ranking = queue.add_ranking(session, pair.id, {})
        queue.replace_queue(session, ranking.id, [queue.QueueEntry(image.id, 2.5, {})])
        queue.close(session, image.id, "done")
        assert answers(session, pair.id, [image.id])[image.id].priority == 0.0


def test_the_number_of_statements_does_not_grow_with_the_images(database: Database) -> None:
    with database.session() as session:
        pair = builders.add_active_pair(session)
        ids = [builders.add_image(session).id for _ in range(30)]
    with database.session(read_only=True) as session, counted(database) as one:
        answers(session, pair.id, ids[:1])
    with database.session(read_only=True) as session, counted(database) as many:
        answers(session, pair.id, ids)
    assert len(many) == len(one) <= 3


def test_images_by_hash_and_by_task(database: Database) -> None:
    with database.session() as session:
        one, two = builders.add_image(session), builders.add_image(session)
        for number, url in enumerate(("http://ls.test", "http://other.test")):
            project = projects.upsert_project(session, url=url, ls_project_id=7, title="t", label_config="<View/>")
            projects.add_tasks(session, project.id, [(101, (one, two)[number].id)])
        strangers = [builders.sha256(f"unknown {number}") for number in range(SIZE + 1)]

        assert {key: image.id for key, image in images_by_sha256(session, [one.sha256, *strangers]).items()} == {
            one.sha256: one.id
        }
        assert {k: image.id for k, image in images_of_tasks(session, "http://ls.test", 7, [101, 102]).items()} == {
            101: one.id
        }
        assert images_of_tasks(session, "http://ls.test", 8, [101]) == {}
