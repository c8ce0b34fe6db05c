"""Pre-annotations and the review order into Label Studio.

Label Studio serves the lowest prediction score of the project's model version first ("Uncertainty sampling"), so the
order travels as `priority_to_score(priority)`. A push can be repeated after any crash: what Label Studio holds is
asked of Label Studio itself wherever our own note of it is missing. Imports are not idempotent, so two pushes at once
would double what both find missing: they take turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from al_loop.context import Loop
from al_loop.push_answers import keep_waiting_fields, marks, show_answers
from al_loop.push_cells import push_cells
from al_loop.push_order import PushReport, to_rescore
from backend.errors import NoTrainedModel, StoredFileCorrupt
from backend.label_studio.client import LabelStudio
from backend.label_studio.label_config import LabelConfig, parse
from backend.label_studio.protocol import UNRANKED_SCORE, priority_to_score
from backend.label_studio.regions import to_regions
from backend.serving import active_pair, regions_of
from db import answers, images, predictions, projects, queue, requests
from db.models import Image, Project, Task, Way

log = logging.getLogger("cellloop.push")

CHUNK = 50  # predictions per request: progress moves, and a crash repeats little


def task_data(image: Image) -> dict[str, Any]:
    """The data of an image's task: its address for the browser, its sha256 to know it by, its size in px."""
    return {
        "image": f"/data/local-files/?d={image.file}",
        "name": image.name,
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
    }


def push(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    wait: bool = True,
) -> PushReport:
    """Give every image of the pool a task, the active pair's prediction and its place in the order.

    In a project of cells, every cell that waits: see `push_cells.py`.
    wait: while another thread, process or machine pushes, or removes a patient; otherwise raises Occupied.
    Raises NoTrainedModel, LabelStudioUnavailable, LabelStudioRefused, FileStoreUnavailable.
    """
    with loop.alone("push", wait=wait):
        way = push_cells if project.way == Way.cell else _push
        return way(loop, label_studio, project, on_progress)


def _push(
    loop: Loop, label_studio: LabelStudio, project: Project, on_progress: Callable[[int, int], None]
) -> PushReport:
    pair = active_pair(loop.database)
    if pair is None:
        raise NoTrainedModel("expected two active models to push predictions of, found none; run: cellloop train")
    created_tasks = _ensure_tasks(loop, label_studio, project)
    with loop.database.session() as session:
        requests.lift(session)
    with loop.database.session(read_only=True) as session:
        stored = predictions.by_pair(session, pair.id)
        waiting = queue.pending(session, Way.field)
        scores = {item.image_id: priority_to_score(item.score) for item in waiting}
        pool = {image.id: image for image in images.pool(session)}
        tasks = [task for task in projects.tasks(session, project.id) if task.image_id in pool]
        ranking = queue.latest_ranking(session)
    ready = [task for task in tasks if task.image_id in stored]
    fresh = [task for task in ready if task.pushed_prediction_id != stored[task.image_id].id]
    config = parse(project.label_config)
    created = _push_predictions(
        loop, label_studio, project, config, pair.id, pair.name, fresh, pool, scores, on_progress
    )
    rescored = _rescore(loop, label_studio, project, scores)
    show_answers(loop, label_studio, project, config, pair.id, [item.image_id for item in waiting])
    keep_waiting_fields(loop, label_studio, project, len(scores))
    if ready and label_studio.project(project.ls_project_id).model_version != pair.name:
        label_studio.set_model_version(project.ls_project_id, pair.name)
    if created or rescored:
        with loop.database.session() as session:
            projects.add_push(session, project.id, pair.id, ranking.id if ranking else None, created, rescored)
    return PushReport(pair.name, created_tasks, created, rescored, len(pool) - len(ready))


def _ensure_tasks(loop: Loop, label_studio: LabelStudio, project: Project) -> int:
    with loop.database.session(read_only=True) as session:
        known = {task.image_id for task in projects.tasks(session, project.id)}
        missing = [image for image in images.pool(session) if image.id not in known]
    if not missing:
        return 0
    # A crash between Label Studio's import and our note of it leaves tasks we do not know: adopt, do not double them.
    there = {task.data.get("sha256"): task.id for task in label_studio.tasks_since(project.ls_project_id)}
    pairs = [(there[image.sha256], image.id) for image in missing if image.sha256 in there]
    absent = [image for image in missing if image.sha256 not in there and _shows(loop, image)]
    ids = label_studio.import_tasks(project.ls_project_id, [task_data(image) for image in absent])
    pairs += [(ls_task_id, image.id) for ls_task_id, image in zip(ids, absent, strict=True)]
    with loop.database.session() as session:
        projects.add_tasks(session, project.id, pairs)
    return len(absent)


def _shows(loop: Loop, image: Image) -> bool:
    """Whether Label Studio, which reads the files of this machine, can show the image; fetches it if need be."""
    try:
        loop.store.bring(image.file, image.sha256)
    except StoredFileCorrupt as error:
        log.warning("image %s gets no task yet: %s", image.name, error)
        return False
    return True


def _push_predictions(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    config: LabelConfig,
    pair_id: int,
    pair_name: str,
    tasks: Sequence[Task],
    pool: Mapping[int, Image],
    scores: Mapping[int, float],
    on_progress: Callable[[int, int], None],
) -> int:
    if not tasks:
        return 0
    held = label_studio.prediction_ids(project.ls_project_id, pair_name)
    _note(loop, pair_id, [task for task in tasks if task.ls_task_id in held], held, {})
    absent = [task for task in tasks if task.ls_task_id not in held]
    shown: dict[int, str] = {}
    for start in range(0, len(absent), CHUNK):
        chunk = absent[start : start + CHUNK]
        on_progress(start, len(absent))
        with loop.database.session(read_only=True) as session:
            found = answers.answers(session, pair_id, [task.image_id for task in chunk])
        items = []
        for task in chunk:
            size = (pool[task.image_id].height, pool[task.image_id].width)
            items.append(
                {
                    "task": task.ls_task_id,
                    "model_version": pair_name,
                    "score": scores.get(task.image_id, UNRANKED_SCORE),
                    "result": to_regions(regions_of(found[task.image_id], size), config, size),
                }
            )
        label_studio.import_predictions(project.ls_project_id, items)
        shown |= {task.id: marks(found[task.image_id]) for task in chunk}
    if absent:
        held = label_studio.prediction_ids(project.ls_project_id, pair_name)
        _note(loop, pair_id, absent, held, scores)
        with loop.database.session() as session:
            for task_id, reasons in shown.items():
                projects.mark_shown(session, task_id, reasons)
        on_progress(len(absent), len(absent))
    return len(absent)


def _note(
    loop: Loop, pair_id: int, tasks: Sequence[Task], held: Mapping[int, int], scores: Mapping[int, float]
) -> None:
    """Remember what Label Studio holds. Without a known score, the next rescoring sets it."""
    with loop.database.session() as session:
        stored = predictions.by_pair(session, pair_id)
        for task in tasks:
            if task.ls_task_id in held:
                score = scores.get(task.image_id, UNRANKED_SCORE) if scores else None
                projects.mark_pushed(session, task.id, stored[task.image_id].id, held[task.ls_task_id], score)


def _rescore(loop: Loop, label_studio: LabelStudio, project: Project, scores: Mapping[int, float]) -> int:
    with loop.database.session(read_only=True) as session:
        tasks = [
            task
            for task in projects.tasks(session, project.id)
            if task.image_id in scores and task.pushed_ls_prediction_id is not None
        ]
    if not tasks:
        return 0
    wanted = {task.id: scores[task.image_id] for task in tasks}
    wrong = [task for task in tasks if task.id in set(to_rescore(wanted, {t.id: t.pushed_score for t in tasks}))]
    if not wrong:
        return 0
    gone = set(label_studio.set_scores({t.pushed_ls_prediction_id: scores[t.image_id] for t in wrong}))  # type: ignore[misc]
    with loop.database.session() as session:
        for task in wrong:
            lost = task.pushed_ls_prediction_id in gone
            projects.mark_pushed(
                session,
                task.id,
                None if lost else task.pushed_prediction_id,
                None if lost else task.pushed_ls_prediction_id,
                None if lost else scores[task.image_id],
            )
    return len(wrong) - len(gone)
