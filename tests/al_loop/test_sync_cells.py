"""Cells one by one into SQL: every action of an expert, once, as exactly one revision of that cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.label_studio.cell_config import ADD_TO_FIELD, NOT_A_CELL, result_of
from db import labels, queue, reviews
from db.models import Action, ItemStatus, LabelRevision, Review, ReviewItem, ReviewStatus, Slot, Way
from db.session import Database
from tests.al_loop.cell_workshop import (
    CELLS,
    answer_next,
    cells_project,
    entries_of,
    next_item,
    open_cells,
    pool,
    push_both,
    queue_up,
    sync_both,
)
from tests.al_loop.workshop import Workshop, newest_revision, relabelled, said, submit_next

BOX = (20, 20, 60, 60)


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    workshop = open_cells(tmp_path, sqlite_database)
    queue_up(workshop, entries_of(workshop, pool(workshop)[0]))
    push_both(workshop)
    return workshop


def status(workshop: Workshop, item_id: int) -> ItemStatus:
    with workshop.database.session(read_only=True) as session:
        return session.get_one(ReviewItem, item_id).status


def actions(workshop: Workshop) -> list[tuple[Action, str | None]]:
    with workshop.database.session(read_only=True) as session:
        found = [(live.action, live.label) for live in labels.current_labels(session, [pool(workshop)[0]])]
    return sorted(found, key=str)


def test_one_answer_is_one_revision_of_one_cell(workshop: Workshop) -> None:
    item, annotation = answer_next(workshop, "schizont", lead_time_s=1.25)
    sync_both(workshop)
    sync_both(workshop)
    assert said(workshop) == {("schizont", BOX)}
    assert newest_revision(workshop) == 1
    assert status(workshop, item) is ItemStatus.done
    with workshop.database.session(read_only=True) as session:
        [review] = session.query(Review).all()
        assert (review.way, review.status, review.lead_time_s) == (Way.cell, ReviewStatus.submitted, 1.25)
        assert review.thread == reviews.annotation_thread(review.ls_project_id or 0, annotation.id)
        assert review.prediction_id is not None
        assert review.expert == "ada@example.org"


def test_accepted_relabelled_and_no_cell(workshop: Workshop) -> None:
    for answer in ("red blood cell", "difficult", NOT_A_CELL):
        answer_next(workshop, answer)
    sync_both(workshop)
    assert actions(workshop) == [(Action.accepted, "red blood cell"), (Action.deleted, None),
                                 (Action.relabelled, "difficult")]  # fmt: skip


def test_a_change_of_mind_and_a_deletion(workshop: Workshop) -> None:
    _, annotation = answer_next(workshop, "ring")
    sync_both(workshop)
    workshop.expert.update(annotation.id, result_of(NOT_A_CELL, CELLS))
    sync_both(workshop)
    assert actions(workshop) == [(Action.deleted, None)]
    workshop.expert.update(annotation.id, result_of("gametocyte", CELLS))
    sync_both(workshop)
    assert said(workshop) == {("gametocyte", BOX)}
    workshop.expert.convert_to_draft(annotation.id)
    sync_both(workshop)
    assert said(workshop) == set()
    with workshop.database.session(read_only=True) as session:
        ways = {review.way for review in session.query(Review)}
    assert ways == {Way.cell}, "a withdrawal is of the same way"


def test_a_skipped_cell_is_for_the_others(workshop: Workshop) -> None:
    item = next_item(workshop, 1)
    task = workshop.expert.next_task(cells_project(workshop).ls_project_id)
    assert task is not None
    workshop.expert.skip(task.id, lead_time_s=1.0)
    sync_both(workshop)
    push_both(workshop)
    assert item is not None
    assert status(workshop, item) is ItemStatus.skipped
    assert next_item(workshop, 1) != item
    assert next_item(workshop, 2) == item
    answer_next(workshop, "ring", user=2)
    sync_both(workshop)
    assert said(workshop) == {("ring", BOX)}


def test_an_answer_to_an_old_item_leaves_the_second_reading_waiting(workshop: Workshop) -> None:
    _, annotation = answer_next(workshop, "ring")
    sync_both(workshop)
    entries = entries_of(workshop, pool(workshop)[0], slot=Slot.second_reading, readers=["ada@example.org"])
    [second] = queue_up(workshop, entries[:1])
    push_both(workshop)
    workshop.expert.update(annotation.id, result_of("schizont", CELLS))
    sync_both(workshop)
    assert status(workshop, second.id) is ItemStatus.pending
    item, _ = answer_next(workshop, "trophozoite", user=2)
    assert item == second.id
    sync_both(workshop)
    assert said(workshop) == {("trophozoite", BOX)}


def test_add_to_field_lets_the_field_come_first(workshop: Workshop) -> None:
    one, two = pool(workshop)[:2]
    queue_up(workshop, [*entries_of(workshop, one), queue.QueueEntry(two, 5.0, {})])
    push_both(workshop)
    answer_next(workshop, ADD_TO_FIELD)
    sync_both(workshop)
    assert said(workshop) == set()
    queue_up(workshop, [queue.QueueEntry(two, 5.0, {})])  # a new ranking does not know of the wish
    push_both(workshop)
    with workshop.database.session(read_only=True) as session:
        waiting = queue.pending(session)
    assert [(item.way, item.image_id) for item in waiting] == [(Way.field, one), (Way.field, two)]
    assert "in its field" in waiting[0].reason
    task = workshop.expert.next_task(workshop.project.ls_project_id)
    assert task is not None
    prediction = task.predictions[-1]
    workshop.expert.submit(task.id, prediction.result, parent_prediction=prediction.id, lead_time_s=5.0)
    sync_both(workshop)
    with workshop.database.session(read_only=True) as session:
        assert [item.image_id for item in queue.pending(session)] == [two]


def test_a_cell_submitted_without_an_answer_is_asked_again(workshop: Workshop) -> None:
    item = next_item(workshop, 1)
    task = workshop.expert.next_task(cells_project(workshop).ls_project_id)
    assert task is not None
    workshop.expert.submit(task.id, [], lead_time_s=1.0)
    assert next_item(workshop, 1) != item
    sync_both(workshop)
    assert newest_revision(workshop) == 0
    assert item is not None
    assert status(workshop, item) is ItemStatus.pending
    assert next_item(workshop, 2) == item


def test_the_same_is_written_whichever_way_an_answer_is_given(tmp_path: Path, sqlite_database: Database) -> None:
    """Kept, another class, no cell: of one image in its field, of another one by one."""
    workshop = open_cells(tmp_path / "both", sqlite_database)
    in_cells, in_field = pool(workshop)[:2]
    queue_up(workshop, [*entries_of(workshop, in_cells), queue.QueueEntry(in_field, 1.0, {})])
    push_both(workshop)
    for answer in ("red blood cell", "schizont", NOT_A_CELL):
        answer_next(workshop, answer)
    submit_next(workshop, lambda result: relabelled(result[:2], 1, "schizont"))
    sync_both(workshop)
    written = {}
    with sqlite_database.session(read_only=True) as session:
        for image_id in (in_cells, in_field):
            rows = (
                session.query(LabelRevision).where(LabelRevision.image_id == image_id).order_by(LabelRevision.cell_id)
            )
            written[image_id] = [
                (r.action, r.label, r.shape, r.mask, r.predicted_cell_id is not None,
                 *(None if v is None else round(v, 3) for v in (r.x1, r.y1, r.x2, r.y2, r.predicted_iou)))
                for r in rows
            ]  # fmt: skip
    assert len(written[in_cells]) == 3
    assert written[in_cells] == written[in_field]
