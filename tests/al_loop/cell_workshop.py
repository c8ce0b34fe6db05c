"""A workshop with a project of cells, and cells that wait in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from al_loop.push import push
from al_loop.sync import sync
from backend.label_studio.cell_config import default_cell_config, parse_cells, result_of
from backend.label_studio.protocol import Annotation
from db import cell_tasks, predictions, projects, queue, versions
from db.models import CellTask, Project, ReviewItem, Slot, Way
from db.queue import QueueEntry
from db.session import Database
from tests.al_loop.workshop import Workshop, add_pool, new_pair, open_workshop
from tests.fake_expert import FakeExpert

CELLS = parse_cells(default_cell_config())
REASON = "ring or trophozoite?"


def open_cells(home: Path, database: Database, images: int = 2, **settings: Any) -> Workshop:
    """An installation with both projects, and images that a pair has predicted; nothing waits yet."""
    workshop = open_workshop(home, database, **settings)
    fake = workshop.fake
    made = fake.create_project("cellloop · cells", default_cell_config())
    with database.session() as session:
        projects.upsert_project(
            session, url=fake.url, ls_project_id=made.id, title=made.title, label_config=made.label_config, way=Way.cell
        )
    new_pair(workshop, add_pool(workshop, images))
    return workshop


def cells_project(workshop: Workshop) -> Project:
    """The project of cells, freshly read."""
    with workshop.database.session(read_only=True) as session:
        found = projects.project(session, workshop.fake.url, way=Way.cell)
    assert found is not None
    return found


def pool(workshop: Workshop) -> list[int]:
    """Images that the serving pair has predicted, oldest first."""
    with workshop.database.session(read_only=True) as session:
        pair = versions.active_pair(session)
        assert pair is not None
        return sorted(predictions.by_pair(session, pair.id))


def entries_of(
    workshop: Workshop, image_id: int, score: float = 1.0, slot: Slot = Slot.acquisition, readers: Sequence[str] = ()
) -> list[QueueEntry]:
    """Queue entries of every predicted cell of an image, the first the most valuable."""
    with workshop.database.session(read_only=True) as session:
        pair = versions.active_pair(session)
        assert pair is not None
        prediction = predictions.get_prediction(session, image_id, pair.id)
        assert prediction is not None
        found = [predicted for predicted, _ in predictions.predicted_cells(session, prediction.id)]
    return [
        QueueEntry(
            image_id, score - 0.1 * place, {}, way=Way.cell, slot=slot, cell_id=predicted.cell_id,
            predicted_cell_id=predicted.id, reason=REASON, readers=tuple(readers),
        )
        for place, predicted in enumerate(found)
    ]  # fmt: skip


def queue_up(workshop: Workshop, entries: Sequence[QueueEntry]) -> list[ReviewItem]:
    """Let these entries wait, as a new ranking does; their items."""
    with workshop.database.session() as session:
        pair = versions.active_pair(session)
        assert pair is not None
        ranking = queue.add_ranking(session, pair.id, {})
        return queue.replace_queue(session, ranking.id, entries)


def push_both(workshop: Workshop) -> None:
    """Push to both projects."""
    for project in (workshop.project, cells_project(workshop)):
        push(workshop, workshop.fake, project)


def sync_both(workshop: Workshop) -> None:
    """Sync both projects."""
    for project in (workshop.project, cells_project(workshop)):
        sync(workshop, workshop.fake, project)


def tasks(workshop: Workshop) -> dict[int, CellTask]:
    """The living tasks of cells, by item."""
    with workshop.database.session(read_only=True) as session:
        return {task.item_id: task for task in cell_tasks.tasks(session, cells_project(workshop).id)}


def answer_next(workshop: Workshop, answer: str, user: int = 1, lead_time_s: float = 1.5) -> tuple[int, Annotation]:
    """This user answers the next cell; its item and the annotation."""
    expert = FakeExpert(workshop.fake, user)
    task = expert.next_task(cells_project(workshop).ls_project_id)
    assert task is not None
    return task.data["item"], expert.submit(task.id, result_of(answer, CELLS), lead_time_s=lead_time_s)


def next_item(workshop: Workshop, user: int) -> int | None:
    """The item of the cell this user is given next."""
    task = FakeExpert(workshop.fake, user).next_task(cells_project(workshop).ls_project_id)
    return None if task is None else task.data["item"]
