"""Fields and single cells, two experts, one real Label Studio: whichever way an answer is given, SQL says the same."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import httpx
import pytest

from backend.label_studio.cell_config import NOT_A_CELL
from db import cell_tasks, labels, projects, queue
from db.models import Action, Slot, Way
from tests.label_studio_fixture import SECOND_EMAIL, RunningLabelStudio
from tests.two_ways import TwoWays, open_two_ways

pytestmark = pytest.mark.label_studio


@pytest.fixture(scope="module")
def ways(label_studio: RunningLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWays]:
    """Both projects of one installation, everything pushed."""
    with open_two_ways(label_studio, tmp_path_factory.mktemp("ways"), "two ways") as ways:
        yield ways


def test_two_experts_share_the_cells_and_every_answer_is_one_revision(ways: TwoWays) -> None:
    image = ways.pool()[0]
    ways.wait(image)
    first, other = ways.next_cell(ways.ada), ways.next_cell(ways.ben)
    assert first is not None
    assert other is not None
    assert first.id != other.id, "never the same first reading"
    assert first.data["item"] < other.data["item"], "in our order, for two experts as well"
    again = ways.next_cell(ways.ada)
    assert again is not None
    assert again.id == first.id, "an open task stays"
    crop = httpx.get(first.data["crop"], headers={"Origin": ways.story.label_studio.url})
    assert (crop.status_code, crop.headers["access-control-allow-origin"]) == (200, "*")
    rejected = ways.answer(ways.ada, first, NOT_A_CELL)
    ring = ways.answer(ways.ben, other, "schizont")
    ways.sync()
    ways.sync()
    said = ways.said(image)
    assert {cell: (row[0], row[2]) for cell, row in said.items()} == {
        rejected: (None, ways.story.label_studio.email),
        ring: ("schizont", SECOND_EMAIL),
    }
    with ways.story.loop.database.session(read_only=True) as session:
        assert [r.action for r in labels.history(session, ring)] == [Action.relabelled]


def test_the_field_shows_what_was_said_of_its_cells_and_comes_when_they_are_done(ways: TwoWays) -> None:
    image = ways.pool()[0]
    ways.push()
    with ways.story.loop.database.session(read_only=True) as session:
        task = projects.task_of(session, ways.story.project.id, image_id=image)
    assert task is not None
    client = ways.story.label_studio.client()
    prediction = client.prediction(task.pushed_ls_prediction_id or 0)
    assert prediction is not None
    marked = [r for r in prediction.result if r.get("meta") == {"text": ["reviewed as a single cell"]}]
    assert [(r["value"]["rectanglelabels"], r["score"]) for r in marked] == [(["schizont"], 1.0)]

    def closed() -> bool:
        return bool(client.transport.get(f"/api/tasks/{task.ls_task_id}/")["is_labeled"])

    assert closed(), "its other cells wait: nobody is given the field"
    for expert in (ways.ada, ways.ben):
        cell = ways.next_cell(expert)
        assert cell is not None
        ways.answer(expert, cell, "ring")
    ways.sync()
    ways.push()
    assert not closed()
    assert ways.next_cell(ways.ada) is None


def test_an_editor_that_shows_the_older_prediction_can_still_submit(ways: TwoWays) -> None:
    image = ways.pool()[0]
    with ways.story.loop.database.session(read_only=True) as session:
        task = projects.task_of(session, ways.story.project.id, image_id=image)
    assert task is not None
    prediction = ways.story.label_studio.client().prediction(task.pushed_ls_prediction_id or 0)
    assert prediction is not None
    shown = deepcopy(prediction.result)
    assert ways.story.label_studio.client().set_result(prediction.id, shown[:1])
    ways.ben.submit(task.ls_task_id, shown, parent_prediction=prediction.id, lead_time_s=20.0)
    before = ways.said(image)
    ways.sync()
    after = ways.said(image)
    assert len(after) >= len(shown)
    kept = {cell: row[:2] for cell, row in after.items() if cell in before}
    assert kept == {cell: row[:2] for cell, row in before.items()}, "the field says the same of these cells"


def test_a_second_reading_is_for_another_expert_and_tells_nothing(ways: TwoWays) -> None:
    image = ways.pool()[1]
    ways.wait(image, count=1)
    task = ways.next_cell(ways.ada)
    assert task is not None
    cell = ways.answer(ways.ada, task, "gametocyte")
    ways.sync()
    ways.wait(image, count=1, slot=Slot.second_reading, readers=[ways.story.label_studio.email])
    assert ways.next_cell(ways.ada) is None
    second = ways.next_cell(ways.ben)
    assert second is not None
    assert second.id != task.id
    raw = ways.ben.transport.get(f"/api/projects/{ways.cells.ls_project_id}/next")
    words = f"{raw['data']} {[p['result'] for p in raw['predictions']]} {raw.get('annotations')} {raw.get('drafts')}"
    for secret in ("gametocyte", "or not?", ways.story.label_studio.email):
        assert secret not in words
    ways.answer(ways.ben, second, "schizont")
    ways.sync()
    assert ways.said(image)[cell][0] == "schizont"
    with ways.story.loop.database.session(read_only=True) as session:
        assert len(labels.history(session, cell)) == 2
        assert queue.pending(session, Way.cell) == []


def test_a_field_answered_shows_its_cells_as_done(ways: TwoWays) -> None:
    image = ways.pool()[2]
    client = ways.story.label_studio.client()
    with ways.story.loop.database.session(read_only=True) as session:
        task = projects.task_of(session, ways.story.project.id, image_id=image)
    assert task is not None
    prediction = client.prediction(task.pushed_ls_prediction_id or 0)  # somebody has had it open since this morning
    assert prediction is not None
    ways.wait(image)
    ways.ada.submit(task.ls_task_id, prediction.result, parent_prediction=prediction.id, lead_time_s=30.0)
    ways.sync()
    ways.push()
    before = ways.said(image)
    ways.sync()
    assert ways.said(image) == before
    assert ways.next_cell(ways.ada) is None
    assert ways.next_cell(ways.ben) is None
    with ways.story.loop.database.session(read_only=True) as session:
        ours = {t.ls_task_id: t.cell_id for t in cell_tasks.tasks(session, ways.cells.id) if t.image_id == image}
    shown = {
        ours[t.id]: t.annotations[0].result[0]["value"]["choices"][0]
        for t in client.tasks_since(ways.cells.ls_project_id)
        if t.id in ours
    }
    assert shown == {cell: before[cell][0] for cell in ours.values()}
    assert len(shown) == 4


def test_repeating_everything_adds_nothing(ways: TwoWays) -> None:
    with ways.story.loop.database.session(read_only=True) as session:
        before = labels.newest_revision_id(session)
    with ways.story.loop.database.session() as session:
        for project in projects.projects(session):
            project.synced_until = None
    ways.push()
    ways.sync()
    ways.push()
    with ways.story.loop.database.session(read_only=True) as session:
        assert labels.newest_revision_id(session) == before
