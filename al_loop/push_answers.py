"""What was said cell by cell, shown in the field; and fields whose cells wait one by one, kept from everybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from al_loop.context import Loop
from al_loop.place import place, take_back
from backend.label_studio.client import LabelStudio
from backend.label_studio.label_config import LabelConfig
from backend.label_studio.regions import RegionCell, to_regions
from backend.serving import regions_of
from db import answers, cell_answers, cell_tasks, images, placed, projects
from db.labels import LiveLabel
from db.models import Project
from db.placed import Why

# A field whose cells wait one by one has the last place in the order. Only when so few others are left can an expert
# come to it, and then it is closed for the time being: 80 ms each, too long for a whole pool.
FEW = 30
REVIEWED = "reviewed as a single cell"


def with_answers(cells: Sequence[RegionCell], said: Mapping[str, LiveLabel]) -> list[RegionCell]:
    """The predicted cells as experts have corrected them: certain, without a reason, and below those in question."""
    shown = [cell for cell in cells if cell.key not in said]
    for cell in cells:
        live = said.get(cell.key)
        if live is not None and live.label is not None:
            shown.append(replace(cell, label=live.label, score=1.0, reason=REVIEWED))
    return shown


def show_answers(loop: Loop, label_studio: LabelStudio, project: Project, config: LabelConfig, pair_id: int) -> int:
    """Let the pre-annotations of fields show the answers their cells got one by one; how many fields changed.

    The prediction is changed and never replaced: an editor that has it open can still submit.
    """
    with loop.database.session(read_only=True) as session:
        newest = cell_answers.unshown(session, project.id)
        tasks = [task for task in projects.tasks(session, project.id) if task.id in newest]
    for task in tasks:
        with loop.database.session(read_only=True) as session:
            image = images.get(session, task.image_id)
            found = answers.answers(session, pair_id, [image.id]).get(image.id)
            said = cell_answers.said_of_cells(session, image.id)
        if found is None or found.prediction_id != task.pushed_prediction_id:
            continue  # this pair's prediction is pushed later
        size = (image.height, image.width)
        regions = to_regions(with_answers(regions_of(found, size), said), config, size)
        if label_studio.set_result(task.pushed_ls_prediction_id or 0, regions):
            with loop.database.session() as session:
                projects.mark_shown(session, task.id, newest[task.id])
    return len(tasks)


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
