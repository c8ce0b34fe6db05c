"""Tasks of cells, what we placed on them, and what experts said and asked for, on both engines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from db import cell_answers, cell_tasks, labels, placed, predictions, projects, queue, requests
from db.models import Action, Cell, Image, ItemStatus, Project, ReviewItem, Slot, Task, Way, now
from db.placed import Why
from db.queue import QueueEntry
from db.session import Database
from tests.builders import add_active_pair, add_cell, add_image, add_prediction, add_review, say

URL = "http://label-studio.test"
BOXES = ((10.0, 10.0, 50.0, 50.0), (100.0, 10.0, 140.0, 50.0))


@dataclass(frozen=True)
class Annotation:
    id: int
    completed_by: int | None = 1
    was_cancelled: bool = False
    lead_time: float | None = None


def prepare(session: Session) -> tuple[Project, list[ReviewItem]]:
    """A project of cells, and the two cells of an image that wait."""
    pair, image = add_active_pair(session), add_image(session)
    prediction = add_prediction(session, image, pair, BOXES)
    project = projects.upsert_project(
        session, url=URL, ls_project_id=7, title="x · cells", label_config="<View/>", way=Way.cell
    )
    ranking = queue.add_ranking(session, pair.id, {})
    entries = [
        QueueEntry(image.id, 2.0 - n, {}, way=Way.cell, cell_id=cell.cell_id, predicted_cell_id=cell.id)
        for n, (cell, _) in enumerate(predictions.predicted_cells(session, prediction.id))
    ]
    return project, queue.replace_queue(session, ranking.id, entries)


def test_a_task_per_item_and_what_misses_one(database: Database) -> None:
    with database.session() as session:
        project, (first, second) = prepare(session)
        assert cell_tasks.missing(session, project.id) == [first, second]
        assert cell_tasks.last_ls_task_id(session, project.id) == 0
        [task] = cell_tasks.add(session, project.id, [(71, first.id)])
        assert cell_tasks.add(session, project.id, [(71, first.id)]) == [task]
        assert cell_tasks.missing(session, project.id) == [second]
        assert cell_tasks.last_ls_task_id(session, project.id) == 71
        assert cell_tasks.unanswered(session, project.id) == [(task, first)]
        assert cell_tasks.known_items(session, [first.id, "x", None, 10**9]) == {first.id}
        assert cell_tasks.mark_deleted(session, [task.id, task.id]) == 1
        assert cell_tasks.missing(session, project.id) == [first, second]
        [again] = cell_tasks.add(session, project.id, [(72, first.id)])
        assert again is task
        assert (task.ls_task_id, task.deleted_at) == (72, None)


def test_what_is_asked_is_where_the_expert_drew_it_last(database: Database) -> None:
    with database.session() as session:
        _, (first, _) = prepare(session)
        asked = cell_tasks.asked(session, first.id)
        assert asked is not None
        assert (asked.box, asked.label, asked.shape) == (BOXES[0], "red blood cell", "rectangle")
        cell = session.get_one(Cell, first.cell_id)
        review = add_review(session, _image(session, first))
        row = labels.revision(review, cell.id, Action.moved, "ring", (12.0, 12.0, 55.0, 55.0), shape="ellipse")
        labels.add_revisions(session, [row])
        moved = cell_tasks.asked(session, first.id)
        assert moved is not None
        assert (moved.box, moved.shape) == ((12.0, 12.0, 55.0, 55.0), "ellipse")
        assert cell_tasks.asked(session, 10**9) is None


def _image(session: Session, item: ReviewItem) -> Image:
    return session.get_one(Image, item.image_id)


def test_a_cell_drawn_by_hand_and_taken_back_is_asked_about_where_it_was(database: Database) -> None:
    with database.session() as session:
        _, (first, _) = prepare(session)
        drawn = add_cell(session, _image(session, first))
        say(session, drawn, "difficult", "ls:1:9", minute=1)
        entry = QueueEntry(drawn.image_id, 1.0, {}, way=Way.cell, slot=Slot.second_reading, cell_id=drawn.id)
        [item] = queue.add_items(session, first.ranking_id, [entry])
        before = cell_tasks.asked(session, item.id)
        say(session, drawn, None, "ls:1:9", minute=2, action="withdrawn")
        after = cell_tasks.asked(session, item.id)
        assert before is not None
        assert after is not None
        assert (after.box, after.label) == (before.box, None)


def test_answered_elsewhere_and_superseded(database: Database) -> None:
    with database.session() as session:
        project, (first, second) = prepare(session)
        one, two = cell_tasks.add(session, project.id, [(71, first.id), (72, second.id)])
        assert cell_tasks.waiting_images(session, URL) == {first.image_id}
        assert cell_tasks.waiting_images(session, "http://elsewhere.test") == set()
        queue.close_cell(session, first.cell_id or 0, ItemStatus.done)
        assert cell_tasks.answered_elsewhere(session, project.id) == [one]
        add_review(session, _image(session, first), "ls:7:1", ls_project_id=7, ls_task_id=71, way=Way.cell)
        assert cell_tasks.answered_elsewhere(session, project.id) == []
        queue.replace_queue(session, second.ranking_id, [])
        assert cell_tasks.superseded_before(session, project.id, now() - timedelta(minutes=1)) == []
        assert cell_tasks.superseded_before(session, project.id, now() + timedelta(minutes=1)) == [two]
        assert cell_tasks.waiting_images(session, URL) == set()


def test_what_we_placed_is_known_before_and_after_its_id(database: Database) -> None:
    with database.session() as session:
        project, (first, _) = prepare(session)
        [task] = cell_tasks.add(session, project.id, [(71, first.id)])
        placed.intend(session, task, Why.reader, 1, cancelled=True)
        assert placed.is_placed(task, Annotation(5, was_cancelled=True)), "the crash came before its id"
        assert not placed.is_placed(task, Annotation(5, was_cancelled=True, lead_time=1.0)), "an expert skipped"
        assert not placed.is_placed(task, Annotation(5))
        placed.complete(session, task, Why.reader, 1, 5)
    with database.session() as session:
        task = cell_tasks.get(session, task.id)
        assert placed.is_placed(task, Annotation(5, was_cancelled=True))
        assert not placed.is_placed(task, Annotation(6, was_cancelled=True))
        assert not placed.is_placed(task, Annotation(5, lead_time=3.0)), "changed by an expert since"
        placed.forget(session, task, Why.cells)
        assert len(placed.entries(task, Why.reader)) == 1
        placed.forget(session, task, Why.reader)
        assert task.placed == []


def test_a_field_owes_what_was_said_of_its_cells(database: Database) -> None:
    with database.session() as session:
        _, (first, _) = prepare(session)
        fields = projects.upsert_project(session, url=URL, ls_project_id=8, title="x", label_config="<View/>")
        assert projects.project(session, URL) is fields
        [task] = projects.add_tasks(session, fields.id, [(81, first.image_id)])
        session.get_one(Task, task.id).pushed_ls_prediction_id = 5
        session.flush()
        assert cell_answers.unshown(session, fields.id) == {}
        review = add_review(session, _image(session, first), "ls:7:1", way=Way.cell)
        row = labels.revision(review, first.cell_id or 0, Action.relabelled, "ring", BOXES[0])
        labels.add_revisions(session, [row])
        newest = labels.newest_revision_id(session)
        assert cell_answers.unshown(session, fields.id) == {task.id: newest}
        assert [live.label for live in cell_answers.said_of_cells(session, first.image_id).values()] == ["ring"]
        projects.mark_shown(session, task.id, "reasons", newest)
        assert cell_answers.unshown(session, fields.id) == {}


def test_a_field_that_is_asked_for_comes_first_and_stays(database: Database) -> None:
    with database.session() as session:
        _, (first, second) = prepare(session)
        other = add_image(session)
        kept = queue.replace_queue(
            session,
            first.ranking_id,
            [
                QueueEntry(other.id, 5.0, {}),
                QueueEntry(first.image_id, 1.0, {}, way=Way.cell, cell_id=first.cell_id),
                QueueEntry(first.image_id, 1.0, {}, way=Way.cell, cell_id=second.cell_id, slot=Slot.second_reading),
            ],
        )
        queue.close_cell(session, first.cell_id or 0, ItemStatus.done)
        field = requests.ask_for_field(session, first, "abc", "ada@example.org")
        assert [item.image_id for item in queue.pending(session, Way.field)] == [first.image_id, other.id]
        assert kept[2].status is ItemStatus.pending, "a second reading is not the field's"
        assert "abc" in field.reason
        entries = [QueueEntry(other.id, 5.0, {}), QueueEntry(first.image_id, 1.0, {}, reason="something else")]
        queue.replace_queue(session, first.ranking_id, entries)
        assert requests.lift(session) == 1
        assert next(item.id for item in queue.pending(session, Way.field)) == field.id, "whatever a ranking makes of it"
        queue.replace_queue(session, first.ranking_id, [])
        assert [item.id for item in queue.pending(session)] == [field.id]
        assert requests.ask_for_field(session, first, "abd", "ben@example.org") is field
