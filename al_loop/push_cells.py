"""Cells one by one into Label Studio: a task for each that waits, in our order.

The order travels as in `push.py`, by predictions that hold nothing else. Tasks are made together with their order and
with what keeps them from those who have read the cell, and adopted from Label Studio by the item in their data: a push
can be repeated after any crash. What was answered or superseded meanwhile is `push_closed.py`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from al_loop.context import Loop
from al_loop.place import place
from al_loop.push_closed import close_answered, remove_superseded
from al_loop.push_order import PushReport, to_rescore
from backend.crop_address import crop_name
from backend.errors import NoTrainedModel
from backend.label_studio.cell_config import ORDER, parse_cells
from backend.label_studio.client import LabelStudio
from backend.label_studio.placing import NewTask
from backend.label_studio.protocol import UNRANKED_SCORE, priority_to_score
from backend.serving import active_pair
from db import cell_tasks, placed, projects, queue
from db.models import CellTask, ItemStatus, Project, ReviewItem, Slot
from db.placed import Why

CHUNK = 200  # tasks per request: 1,000 take 0.7 s
QUESTION = "What is the outlined cell?"
SECOND_QUESTION = "A second reading. What is the outlined cell?"


def task_data(loop: Loop, item: ReviewItem) -> dict[str, Any]:
    """The data of a cell's task. A second reading is told nothing: neither a model's view nor why it is asked."""
    second = item.slot == Slot.second_reading
    return {
        "item": item.id,
        "crop": f"{loop.settings.public_url}/crops/{crop_name(item.id, loop.credentials.crop_key)}",
        "question": SECOND_QUESTION if second else item.reason or QUESTION,
    }


def push_cells(
    loop: Loop, label_studio: LabelStudio, project: Project, on_progress: Callable[[int, int], None]
) -> PushReport:
    """Give every waiting cell a task in its place, and take away or close the tasks of cells that wait no more.

    Raises NoTrainedModel, LabelStudioUnavailable, LabelStudioRefused.
    """
    pair = active_pair(loop.database)
    if pair is None:
        raise NoTrainedModel("expected two active models whose order to push, found none; run: cellloop train")
    config = parse_cells(project.label_config)
    _repoint(loop, label_studio, project)
    created = _ensure_tasks(loop, label_studio, project, on_progress)
    _keep_from_readers(loop, label_studio, project)
    close_answered(loop, label_studio, project, config)
    remove_superseded(loop, label_studio, project)
    rescored = _rescore(loop, label_studio, project)
    with loop.database.session(read_only=True) as session:
        there = bool(cell_tasks.tasks(session, project.id))
        ranking = queue.latest_ranking(session)
    if there and label_studio.project(project.ls_project_id).model_version != ORDER:
        label_studio.set_model_version(project.ls_project_id, ORDER)
    if created or rescored:
        with loop.database.session() as session:
            projects.add_push(session, project.id, pair.id, ranking.id if ranking else None, created, rescored)
    return PushReport(pair.name, created, created, rescored, 0)


def _missing(loop: Loop, project: Project) -> Sequence[ReviewItem]:
    with loop.database.session(read_only=True) as session:
        return cell_tasks.missing(session, project.id)


def _repoint(loop: Loop, label_studio: LabelStudio, project: Project) -> None:
    """Let a cell that comes back to the queue have its task back: who skipped it there is not asked again."""
    missing = {item.cell_id: item for item in _missing(loop, project) if item.slot != Slot.second_reading}
    if not missing:
        return
    with loop.database.session(read_only=True) as session:
        left = [
            task
            for task, item in cell_tasks.unanswered(session, project.id)
            if task.cell_id in missing and item.status != ItemStatus.pending and item.slot != Slot.second_reading
        ]
    for task in left:
        item = missing.pop(task.cell_id, None)
        if item is not None and label_studio.set_task_data(task.ls_task_id, task_data(loop, item)):
            with loop.database.session() as session:
                cell_tasks.repoint(session, task.id, item.id)


def _ensure_tasks(
    loop: Loop, label_studio: LabelStudio, project: Project, on_progress: Callable[[int, int], None]
) -> int:
    if not _missing(loop, project):
        return 0
    _adopt(loop, label_studio, project)  # made by a push that died before it noted them
    missing = _missing(loop, project)
    users = _users(label_studio) if any(item.readers for item in missing) else {}
    for start in range(0, len(missing), CHUNK):
        chunk = missing[start : start + CHUNK]
        on_progress(start, len(missing))
        tasks = [
            NewTask(
                task_data(loop, item),
                priority_to_score(item.score),
                [users[reader] for reader in item.readers if reader in users],
            )
            for item in chunk
        ]
        label_studio.import_ordered_tasks(project.ls_project_id, tasks, ORDER)
        _adopt(loop, label_studio, project)
    on_progress(len(missing), len(missing))
    return len(missing)


def _users(label_studio: LabelStudio) -> dict[str, int]:
    return {email: user for user, email in label_studio.users().items()}


def _adopt(loop: Loop, label_studio: LabelStudio, project: Project) -> None:
    """Note the tasks that came after those we know. Older ones we do not know cannot be: each import adopts first."""
    with loop.database.session(read_only=True) as session:
        last = cell_tasks.last_ls_task_id(session, project.id)
    found = [task for task in label_studio.tasks_after(project.ls_project_id, last) if task.data.get("item")]
    kept = {task.id: [a for a in task.annotations if a.was_cancelled and a.lead_time is None] for task in found}
    label_studio.open_task([annotation.id for imported in kept.values() for annotation in imported])
    with loop.database.session() as session:
        ours = cell_tasks.known_items(session, [task.data["item"] for task in found])
        found = [task for task in found if task.data["item"] in ours]  # others people made
        rows = cell_tasks.add(session, project.id, [(task.id, task.data["item"]) for task in found])
        for row, task in zip(rows, found, strict=True):
            for annotation in kept[task.id]:
                placed.intend(session, row, Why.reader, annotation.completed_by or 0, cancelled=True)
                placed.complete(session, row, Why.reader, annotation.completed_by or 0, annotation.id)
            order = next((p for p in task.predictions if p.model_version == ORDER), None)
            row.pushed_ls_prediction_id = order.id if order is not None else None
            row.pushed_score = order.score if order is not None else None


def _keep_from_readers(loop: Loop, label_studio: LabelStudio, project: Project) -> None:
    """A reader that an item got after its task was made must not be given the task either."""
    with loop.database.session(read_only=True) as session:
        late = [
            (task, item)
            for task, item in cell_tasks.unanswered(session, project.id)
            if item.status == ItemStatus.pending and len(item.readers) > len(placed.entries(task, Why.reader))
        ]
    if not late:
        return
    users = _users(label_studio)
    for task, item in late:
        kept = {entry["user"] for entry in placed.entries(task, Why.reader) if entry["annotation"] is not None}
        for reader in item.readers:
            user = users.get(reader)
            if user is not None and user not in kept:
                place(loop, label_studio, task, Why.reader, [], user, cancelled=True)


def _rescore(loop: Loop, label_studio: LabelStudio, project: Project) -> int:
    with loop.database.session(read_only=True) as session:
        # Skipped ones keep their place: they are for the others.
        waiting = [
            (task, item)
            for task, item in cell_tasks.unanswered(session, project.id)
            if item.status in (ItemStatus.pending, ItemStatus.superseded)
        ]
    tasks = {task.id: task for task, _ in waiting}
    _replace_lost(loop, label_studio, project, [t for t in tasks.values() if t.pushed_ls_prediction_id is None])
    wanted = {task.id: _score(item) for task, item in waiting}
    wrong = [
        tasks[task_id]
        for task_id in to_rescore(wanted, {task_id: task.pushed_score for task_id, task in tasks.items()})
        if tasks[task_id].pushed_ls_prediction_id is not None
    ]
    if not wrong:
        return 0
    gone = set(label_studio.set_scores({t.pushed_ls_prediction_id or 0: wanted[t.id] for t in wrong}))
    with loop.database.session() as session:
        for task in wrong:
            lost = task.pushed_ls_prediction_id in gone
            score = None if lost else wanted[task.id]
            cell_tasks.mark_pushed(session, task.id, None if lost else task.pushed_ls_prediction_id, score)
    return len(wrong) - len(gone)


def _score(item: ReviewItem) -> float:
    return priority_to_score(item.score) if item.status == ItemStatus.pending else UNRANKED_SCORE


def _replace_lost(loop: Loop, label_studio: LabelStudio, project: Project, tasks: Sequence[CellTask]) -> None:
    """Predictions that somebody deleted in Label Studio come back, and get their score from the next push."""
    if not tasks:
        return
    held: Mapping[int, int] = label_studio.prediction_ids(project.ls_project_id, ORDER)
    absent = [task for task in tasks if task.ls_task_id not in held]
    there = label_studio.task_ids(project.ls_project_id)
    items = [
        {"task": task.ls_task_id, "model_version": ORDER, "score": UNRANKED_SCORE, "result": []}
        for task in absent
        if task.ls_task_id in there
    ]
    label_studio.import_predictions(project.ls_project_id, items)
    held = label_studio.prediction_ids(project.ls_project_id, ORDER) if items else held
    with loop.database.session() as session:
        for task in tasks:
            if task.ls_task_id in held:
                cell_tasks.mark_pushed(session, task.id, held[task.ls_task_id], None)
