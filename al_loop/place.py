"""Place an annotation of ours on a task, once, whatever is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from al_loop.context import Loop
from backend.label_studio.client import LabelStudio
from db import placed
from db.models import CellTask, Task
from db.placed import Why


def place(
    loop: Loop,
    label_studio: LabelStudio,
    task: Task | CellTask,
    why: Why,
    result: Sequence[Any],
    user: int,
    *,
    cancelled: bool = False,
) -> bool:
    """Let Label Studio hold an annotation of this user's on the task, and remember that it is ours.

    The intent is noted first: a sync that comes in between knows the annotation for ours, and the push after a crash
    completes the note instead of placing a second one. False when the task is gone in Label Studio.
    """
    entry = next((entry for entry in placed.entries(task, why) if entry["user"] == user), None)
    if entry is not None and entry["annotation"] is not None:
        return True
    annotation_id = None
    if entry is None:
        with loop.database.session() as session:
            placed.intend(session, _row(session, task), why, user, cancelled=cancelled)
    else:
        annotation_id = _found(label_studio, task, user, cancelled)
    if annotation_id is None:
        annotation_id = label_studio.place_annotation(task.ls_task_id, result, user, cancelled=cancelled)
    if annotation_id is None:
        return False
    with loop.database.session() as session:
        placed.complete(session, _row(session, task), why, user, annotation_id)
    return True


def take_back(loop: Loop, label_studio: LabelStudio, task: Task | CellTask, why: Why) -> None:
    """Remove what was placed on the task for this reason; an annotation that an expert has changed since is theirs."""
    there = label_studio.task(task.ls_task_id)
    for annotation in there.annotations if there is not None else []:
        ours = [entry for entry in placed.entries(task, why) if placed.is_entry(entry, annotation)]
        if ours:
            label_studio.remove_annotation(annotation.id)
    with loop.database.session() as session:
        placed.forget(session, _row(session, task), why)


def _row(session: Session, task: Task | CellTask) -> Task | CellTask:
    return session.get_one(Task, task.id) if isinstance(task, Task) else session.get_one(CellTask, task.id)


def _found(label_studio: LabelStudio, task: Task | CellTask, user: int, cancelled: bool) -> int | None:
    """The annotation of an intent whose id we never learned."""
    there = label_studio.task(task.ls_task_id)
    known = {entry["annotation"] for entry in task.placed}
    return next(
        (
            annotation.id
            for annotation in (there.annotations if there is not None else [])
            if annotation.completed_by == user
            and annotation.was_cancelled == cancelled
            and annotation.lead_time is None
            and annotation.id not in known
        ),
        None,
    )
