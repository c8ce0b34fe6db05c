"""The expert who knows the truth, at cells one by one: what `scripted_expert.py` is for whole fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from al_loop.context import Loop
from al_loop.formats.records import SourceImage, SourceObject
from al_loop.revise import Box
from al_loop.scripted_expert import MATCH_IOU, SECONDS
from backend.label_studio.cell_config import NOT_A_CELL, parse_cells, result_of
from backend.label_studio.expert import ExpertSession
from backend.overlap import iou_matrix
from db import cell_tasks
from db.models import Project


def answer_with_truth(truth: Sequence[SourceObject], box: Box) -> str:
    """The true label of the cell in this box (xyxy px), NOT_A_CELL where there is none."""
    boxes = np.array([thing.box for thing in truth], dtype=np.float32).reshape(-1, 4)
    overlap = iou_matrix(np.array([box], dtype=np.float32), boxes)[0]
    if not len(overlap) or overlap.max() < MATCH_IOU:
        return NOT_A_CELL
    return truth[int(overlap.argmax())].label


def review_next_cell(
    loop: Loop, expert: ExpertSession, project: Project, truth: Mapping[str, SourceImage]
) -> int | None:
    """Answer the cell Label Studio serves next; the task's id, None when none is left.

    truth: source images by sha256. Which cell a task's crop shows, a person sees; we look its item up.
    """
    task = expert.next_task(project.ls_project_id)
    if task is None:
        return None
    item = task.data.get("item")
    with loop.database.session(read_only=True) as session:
        asked = cell_tasks.asked(session, item) if isinstance(item, int) else None
    source = truth.get(asked.sha256) if asked is not None else None
    if asked is None or source is None:
        expert.skip(task.id, lead_time_s=SECONDS["deleted"])
        return task.id
    objects, _ = source.usable_objects(asked.width, asked.height)
    answer = answer_with_truth(objects, asked.box)
    seconds = SECONDS["accepted" if answer == asked.label else "relabelled"] + SECONDS["deleted"]
    expert.submit(task.id, result_of(answer, parse_cells(project.label_config)), lead_time_s=seconds)
    return task.id
