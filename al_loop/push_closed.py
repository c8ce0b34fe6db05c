"""Tasks of cells that wait no more: answered in the other way of reviewing, or left out by a newer ranking."""

from __future__ import annotations

from al_loop.context import Loop
from al_loop.place import place
from backend.label_studio.cell_config import NOT_A_CELL, CellConfig, result_of
from backend.label_studio.client import LabelStudio
from db import cell_tasks, placed
from db.assignments import LEASE
from db.labels import current_labels
from db.models import Project, now
from db.placed import Why

REMOVED_AT_ONCE = 50  # tasks per push; each is looked at before


def close_answered(loop: Loop, label_studio: LabelStudio, project: Project, config: CellConfig) -> int:
    """Show cells that were answered in their field as done here, with the expert's answer; how many."""
    with loop.database.session(read_only=True) as session:
        tasks = [
            task
            for task in cell_tasks.answered_elsewhere(session, project.id)
            if not any(entry["annotation"] for entry in placed.entries(task, Why.elsewhere))
        ]
        labels = {
            live.cell_id: live.label or NOT_A_CELL
            for live in current_labels(session, {task.image_id for task in tasks})
        }
    if not tasks:
        return 0
    user = label_studio.whoami().id
    for task in tasks:
        said = labels.get(task.cell_id)
        if said is not None:
            place(loop, label_studio, task, Why.elsewhere, result_of(said, config), user)
    return len(tasks)


def remove_superseded(loop: Loop, label_studio: LabelStudio, project: Project) -> int:
    """Delete tasks that no ranking wants, some time after they went to the end of the order; how many.

    Not at once: an expert may have opened one just before. Never one that holds an annotation.
    """
    with loop.database.session(read_only=True) as session:
        left = cell_tasks.superseded_before(session, project.id, now() - LEASE)[:REMOVED_AT_ONCE]
    unseen = [
        task
        for task in left
        if (there := label_studio.task(task.ls_task_id)) is None
        or not any(a.lead_time is not None or not a.was_cancelled for a in there.annotations)
    ]
    label_studio.delete_tasks(project.ls_project_id, [task.ls_task_id for task in unseen])
    with loop.database.session() as session:
        return cell_tasks.mark_deleted(session, [task.id for task in unseen])
