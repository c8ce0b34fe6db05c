"""What was said cell by cell and why cells are asked about, shown in the field; and fields kept while cells wait."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from al_loop.context import Loop
from al_loop.place import place, take_back
from backend.label_studio.client import LabelStudio
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.regions import RegionCell, to_regions
from backend.serving import regions_of
from db import answers, cell_answers, cell_tasks, images, placed, projects
from db.answers import Answer
from db.labels import LiveLabel
from db.models import Project
from db.placed import Why

# A field whose cells wait one by one has the last place in the order. Only when so few others are left can an expert
# come to it, and then it is closed for the time being: 80 ms each, too long for a whole pool.
FEW = 30
REVIEWED = "reviewed as a single cell"
NEXT_UP = 30  # fields whose reasons are kept as today's ranking gives them: 60 ms each where they change


def with_answers(cells: Sequence[RegionCell], said: Mapping[str, LiveLabel]) -> list[RegionCell]:
    """The predicted cells as experts have corrected them: certain, without a reason, and below those in question."""
    shown = [cell for cell in cells if cell.key not in said]
    for cell in cells:
        live = said.get(cell.key)
        if live is not None and live.label is not None:
            shown.append(replace(cell, label=live.label, score=1.0, reason=REVIEWED))
    return shown


def marks(answer: Answer) -> str:
    """A hash of the reasons this prediction is shown with."""
    reasons = sorted((cell.key, cell.reason) for cell in answer.cells if cell.reason)
    return hashlib.sha256(repr(reasons).encode()).hexdigest()


def show_answers(
    loop: Loop, label_studio: LabelStudio, project: Project, config: LabelConfig, pair_id: int, first: Sequence[int]
) -> int:
    """Let the pre-annotations of fields show the answers their cells got one by one, and today's reasons; how many
    fields changed.

    first: images whose fields experts are about to get. The prediction is changed and never replaced: an editor that
    has it open can still submit.
    """
    next_up = set(first[:NEXT_UP])
    with loop.database.session(read_only=True) as session:
        newest = cell_answers.unshown(session, project.id)
        tasks = [t for t in projects.tasks(session, project.id) if t.id in newest or t.image_id in next_up]
        found = answers.answers(session, pair_id, [task.image_id for task in tasks])
    changed = 0
    for task in tasks:
        answer = found.get(task.image_id)
        if answer is None or answer.prediction_id != task.pushed_prediction_id:
            continue  # this pair's prediction is pushed later
        if task.id not in newest and marks(answer) == task.pushed_marks:
            continue
        with loop.database.session(read_only=True) as session:
            image = images.get(session, task.image_id)
            said = cell_answers.said_of_cells(session, image.id)
        size = (image.height, image.width)
        regions = to_regions(with_answers(regions_of(answer, size), said), config, size)
        if label_studio.set_result(task.pushed_ls_prediction_id or 0, regions):
            with loop.database.session() as session:
                projects.mark_shown(session, task.id, marks(answer), newest.get(task.id))
            changed += 1
    return changed


def keep_waiting_fields(loop: Loop, label_studio: LabelStudio, project: Project, waiting_fields: int) -> None:
    """Nobody is given a whole field while its cells wait one by one: a cell is open in one place at a time.

    waiting_fields: how many fields come before those in Label Studio's order.
    """
    with loop.database.session(read_only=True) as session:
        waiting = cell_tasks.waiting_images(session, project.url)
        tasks = projects.tasks(session, project.id)
    kept = [task for task in tasks if placed.entries(task, Why.cells)]
    for task in kept:
        if task.image_id not in waiting:
            take_back(loop, label_studio, task, Why.cells)
    if waiting_fields >= FEW:
        return
    open_ = [
        task
        for task in tasks
        if task.image_id in waiting and not any(entry["annotation"] for entry in placed.entries(task, Why.cells))
    ]
    user = label_studio.whoami().id if open_ else 0
    for task in open_:
        place(loop, label_studio, task, Why.cells, [], user)
