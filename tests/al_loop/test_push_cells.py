"""Cells one by one into Label Studio: once, in our order, never to who has read them, whatever is interrupted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from al_loop.push_answers import REVIEWED
from backend.crop_address import item_of
from backend.errors import LabelStudioUnavailable
from backend.label_studio.cell_config import NOT_A_CELL, ORDER
from backend.label_studio.protocol import UNRANKED_SCORE, priority_to_score
from db import assignments, queue
from db.models import ItemStatus, ReviewItem, Slot, now
from db.session import Database
from tests.al_loop.cell_workshop import (
    REASON,
    answer_next,
    cells_project,
    entries_of,
    next_item,
    open_cells,
    pool,
    push_both,
    queue_up,
    sync_both,
    tasks,
)
from tests.al_loop.workshop import Workshop, said


@pytest.fixture
def workshop(tmp_path: Path, sqlite_database: Database) -> Workshop:
    return open_cells(tmp_path, sqlite_database)


def cell_tasks_there(workshop: Workshop) -> list[int]:
    """Items of the tasks that Label Studio has in the project of cells."""
    project_id = cells_project(workshop).ls_project_id
    return [row.data["item"] for row in workshop.fake.tasks.values() if row.project == project_id]


def test_every_waiting_cell_gets_one_task_in_our_order(tmp_path: Path, database: Database) -> None:
    workshop = open_cells(tmp_path, database)
    items = queue_up(workshop, entries_of(workshop, pool(workshop)[0]))
    push_both(workshop)
    push_both(workshop)
    assert sorted(cell_tasks_there(workshop)) == [item.id for item in items]
    assert workshop.fake.project(cells_project(workshop).ls_project_id).model_version == ORDER
    data = workshop.fake.tasks[tasks(workshop)[items[0].id].ls_task_id].data
    name = data["crop"].removeprefix(f"{workshop.settings.public_url}/crops/")
    assert item_of(name, workshop.credentials.crop_key) == items[0].id
    assert data["question"] == REASON
    assert [answer_next(workshop, "ring")[0] for _ in items] == [item.id for item in items]
    assert next_item(workshop, 1) is None


@pytest.mark.parametrize("lost", ["import_ordered_tasks", "open_task", "set_scores"])
def test_a_lost_answer_doubles_nothing(workshop: Workshop, lost: str) -> None:
    first = pool(workshop)[0]
    items = queue_up(workshop, entries_of(workshop, first, slot=Slot.second_reading, readers=["ada@example.org"]))
    workshop.fake.crash_after = {lost}
    if lost != "set_scores":
        with pytest.raises(LabelStudioUnavailable):
            push_both(workshop)
    push_both(workshop)
    assert sorted(cell_tasks_there(workshop)) == [item.id for item in items]
    assert next_item(workshop, 1) is None, "she has read them"
    assert next_item(workshop, 2) == items[0].id
    sync_both(workshop)
    assert said(workshop) == set()
    with workshop.database.session(read_only=True) as session:
        assert len(queue.pending(session)) == 3, "what we placed is nobody's answer"


def test_two_experts_are_never_given_the_same_cell(workshop: Workshop) -> None:
    items = queue_up(workshop, entries_of(workshop, pool(workshop)[0]))
    push_both(workshop)
    assert [next_item(workshop, 1), next_item(workshop, 2), next_item(workshop, 1)] == [
        items[0].id, items[1].id, items[0].id,
    ]  # fmt: skip


def test_a_second_reading_reveals_nothing_and_is_not_for_its_first_reader(workshop: Workshop) -> None:
    first = pool(workshop)[0]
    queue_up(workshop, entries_of(workshop, first)[:1])
    push_both(workshop)
    answer_next(workshop, "schizont", user=1)
    sync_both(workshop)
    [item] = queue_up(workshop, entries_of(workshop, first, slot=Slot.second_reading, readers=["ada@example.org"])[:1])
    push_both(workshop)
    assert next_item(workshop, 1) is None
    assert next_item(workshop, 2) == item.id
    task = workshop.fake.task(tasks(workshop)[item.id].ls_task_id)
    assert task is not None
    shown = f"{task.data} {[p.result for p in task.predictions]} {[a.result for a in task.annotations]}"
    for word in ("schizont", "red blood cell", "ada", REASON):
        assert word not in shown
    assert "second reading" in task.data["question"]


def test_a_reader_who_comes_late_is_kept_from_the_task_too(workshop: Workshop) -> None:
    first = pool(workshop)[0]
    queue_up(workshop, entries_of(workshop, first)[:1])
    push_both(workshop)
    queue_up(workshop, entries_of(workshop, first, readers=["ben@example.org"])[:1])
    push_both(workshop)
    push_both(workshop)
    assert next_item(workshop, 2) is None
    assert next_item(workshop, 1) is not None
    assert len([a for a in workshop.fake.annotations.values() if a.was_cancelled]) == 1


def test_a_superseded_cell_goes_last_then_away_but_not_from_who_has_it_open(workshop: Workshop) -> None:
    one, two = pool(workshop)[:2]
    held, left, _ = queue_up(workshop, entries_of(workshop, one))
    push_both(workshop)
    with workshop.database.session() as session:
        assert assignments.hold(session, held.id, "label studio")
    queue_up(workshop, entries_of(workshop, two))
    push_both(workshop)
    assert len(cell_tasks_there(workshop)) == 6
    scores = {p.task: p.score for p in workshop.fake.of_version(ORDER).values() for p in p}
    assert scores[tasks(workshop)[held.id].ls_task_id] == priority_to_score(held.score)
    assert scores[tasks(workshop)[left.id].ls_task_id] == UNRANKED_SCORE
    with workshop.database.session() as session:
        session.get_one(ReviewItem, left.id).closed_at = now() - timedelta(hours=1)
    push_both(workshop)
    assert left.id not in cell_tasks_there(workshop)
    assert len(cell_tasks_there(workshop)) == 5
    assert left.id not in tasks(workshop)


def test_a_cell_that_comes_back_gets_its_task_back(workshop: Workshop) -> None:
    one, two = pool(workshop)[:2]
    queue_up(workshop, entries_of(workshop, one)[:1])
    push_both(workshop)
    queue_up(workshop, entries_of(workshop, two)[:1])
    [again] = queue_up(workshop, entries_of(workshop, one)[:1])
    push_both(workshop)
    assert again.id in cell_tasks_there(workshop)
    assert len(cell_tasks_there(workshop)) == 1
    assert next_item(workshop, 1) == again.id


def test_a_field_shows_what_was_said_of_its_cells(workshop: Workshop) -> None:
    one = pool(workshop)[0]
    queue_up(workshop, entries_of(workshop, one))
    push_both(workshop)
    answer_next(workshop, "schizont")
    answer_next(workshop, NOT_A_CELL)
    sync_both(workshop)
    push_both(workshop)
    writes = workshop.fake.calls.count("set_result")
    push_both(workshop)
    assert workshop.fake.calls.count("set_result") == writes == 1
    [prediction] = [p for p in workshop.fake.predictions.values() if p.model_version != ORDER and len(p.result) == 2]
    labels = {r["value"]["rectanglelabels"][0]: r for r in prediction.result}
    assert set(labels) == {"schizont", "red blood cell"}
    assert labels["schizont"]["score"] == 1.0
    assert labels["schizont"]["meta"] == {"text": [REVIEWED]}


def test_a_field_whose_cells_wait_is_given_to_nobody_until_they_are_done(workshop: Workshop) -> None:
    one, two = pool(workshop)[:2]
    queue_up(workshop, [*entries_of(workshop, one)[:1], queue.QueueEntry(two, 1.0, {})])
    push_both(workshop)
    expert, project = workshop.expert, workshop.project.ls_project_id
    task = expert.next_task(project)
    assert task is not None
    expert.skip(task.id)
    assert expert.next_task(project) is None
    answer_next(workshop, "ring")
    sync_both(workshop)
    push_both(workshop)
    assert expert.next_task(project) is not None
    assert said(workshop) == {("ring", (20, 20, 60, 60))}


def test_a_field_that_is_answered_closes_its_cells(workshop: Workshop) -> None:
    one = pool(workshop)[0]
    items = queue_up(workshop, entries_of(workshop, one))
    push_both(workshop)
    field_task = next(t for t, row in workshop.fake.tasks.items() if "sha256" in row.data and row.project == 1)
    prediction = next(p for p in workshop.fake.predictions.values() if p.task == field_task)
    workshop.expert.submit(field_task, prediction.result, parent_prediction=prediction.id, lead_time_s=9.0)
    sync_both(workshop)
    with workshop.database.session(read_only=True) as session:
        assert {session.get_one(ReviewItem, item.id).status for item in items} == {ItemStatus.done}
    before = said(workshop)
    push_both(workshop)
    push_both(workshop)
    sync_both(workshop)
    assert next_item(workshop, 1) is None
    assert next_item(workshop, 2) is None
    shown = [a for a in workshop.fake.annotations.values() if a.result and a.result[0]["type"] == "choices"]
    assert [a.result[0]["value"]["choices"] for a in shown] == [["red blood cell"]] * 3
    assert said(workshop) == before


def test_a_lost_answer_places_nothing_twice_and_is_no_experts_answer(workshop: Workshop) -> None:
    """The field kept from everybody while its cells wait, then an answered field's cells."""
    one = pool(workshop)[0]
    items = queue_up(workshop, entries_of(workshop, one))
    fake = workshop.fake
    fake.crash_after = {"place_annotation"}
    with pytest.raises(LabelStudioUnavailable):
        push_both(workshop)
    sync_both(workshop)
    push_both(workshop)
    assert len(fake.annotations) == 1
    [kept] = fake.annotations.values()
    prediction = next(p for p in fake.predictions.values() if p.task == kept.task)
    workshop.expert.submit(kept.task or 0, prediction.result, parent_prediction=prediction.id, lead_time_s=9.0)
    sync_both(workshop)
    before = said(workshop)
    assert len(before) == 3
    fake.crash_after = {"place_annotation"}
    with pytest.raises(LabelStudioUnavailable):
        push_both(workshop)
    sync_both(workshop)
    push_both(workshop)
    sync_both(workshop)
    shown = [a.task for a in fake.annotations.values() if a.result and a.result[0]["type"] == "choices"]
    assert len(shown) == len(set(shown)) == len(items)
    assert kept.id not in fake.annotations, "its cells are done"
    assert said(workshop) == before


def test_what_an_expert_made_of_a_placed_annotation_is_theirs(workshop: Workshop) -> None:
    """They opened the kept field from the list of tasks and pressed Update."""
    one = pool(workshop)[0]
    queue_up(workshop, entries_of(workshop, one))
    push_both(workshop)
    fake = workshop.fake
    [kept] = fake.annotations.values()
    prediction = next(p for p in fake.predictions.values() if p.task == kept.task)
    fake.annotations[kept.id] = kept.model_copy(update={"lead_time": 4.0})
    workshop.expert.update(kept.id, prediction.result)
    sync_both(workshop)
    assert len(said(workshop)) == 3
    push_both(workshop)
    sync_both(workshop)
    assert kept.id in fake.annotations
    assert len(said(workshop)) == 3
