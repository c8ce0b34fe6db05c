"""Reviews come back: what Label Studio holds becomes append-only reviews and label revisions in SQL.

Label Studio's webhook is one POST with a 1 s time-out and no retry, so it only wakes us. The truth is read by
polling tasks by `updated_at`, with an overlapping window, and comparing: an annotation whose content is known adds
nothing, nor does what was read before something newer became known, so a sync may run twice, at once, or after any
crash. Annotations that are gone (deleted, or turned back into a draft) are withdrawn; so are those of deleted tasks,
which a sweep of all task ids finds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from al_loop.context import Loop
from al_loop.record_cell import sync_cell
from al_loop.record_review import Source, SyncReport, outdated, record_review, withdraw
from backend.label_studio.cell_config import parse_cells
from backend.label_studio.client import LabelStudio
from backend.label_studio.label_config import LabelConfig, parse
from backend.label_studio.protocol import Task
from db import cell_tasks, images, placed, projects, reviews
from db.models import CellTask, Project, ReviewStatus, Way, now
from db.models import Task as OurTask

log = logging.getLogger("cellloop.sync")

# Tasks changed this long before the cursor are read again: Label Studio stamps a task before it commits it.
OVERLAP = timedelta(seconds=60)
# Between two readings. Each reads the last minute again, so many experts would keep one busy without end, and it shares
# its processor with the server they wait for; half a second at most, as a label is to be in SQL within two.
LEAST_PAUSE_S, MOST_PAUSE_S, PAUSES = 0.2, 0.5, 2.0


def pause_after(worked_s: float) -> float:
    """Seconds to rest after so many seconds of work: twice as long, within limits."""
    return min(max(PAUSES * worked_s, LEAST_PAUSE_S), MOST_PAUSE_S)


def sync(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    *,
    sweep: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> SyncReport:
    """Read everything that changed in this project since the last sync into SQL.

    sweep: also look for tasks deleted in Label Studio, and for times that went by unread, which needs the ids and times
    of all of them. clock: seconds, to time the reading. The cursor moves only after everything before it is committed.
    Raises LabelStudioUnavailable, LabelStudioRefused.
    """
    report = SyncReport()
    since = project.synced_until - OVERLAP if project.synced_until else None
    with loop.database.session(read_only=True) as session:
        newest = reviews.newest_review_id(session)
        ours: Sequence[OurTask | CellTask] = []
        if sweep:  # before asking which live: a push may be adding some right now
            of_way = cell_tasks.tasks if project.way == Way.cell else projects.tasks
            ours = of_way(session, project.id)
    began = clock()
    changed = list(label_studio.tasks_since(project.ls_project_id, since))
    present = label_studio.answered_at
    if since is not None and present is not None and present < since:
        # Its clock was put back: what changed since then bears times that we took for read.
        changed = list(label_studio.tasks_since(project.ls_project_id))
    reading = timedelta(seconds=clock() - began)
    read = _take_in(loop, label_studio, project, changed, newest, report)
    living = label_studio.task_times(project.ls_project_id) if sweep else None
    if living is not None:
        read |= _take_in_unread(loop, label_studio, project, ours, living, read, report)
    stamps = [task.updated_at for task in changed if task.updated_at]
    with loop.database.session() as session:
        projects.mark_read(session, project, read)
        if living is not None:
            gone = [task for task in ours if task.ls_task_id not in living]
            _withdraw_deleted_tasks(session, project, gone, report)
            report.deleted = len(gone)
        if stamps:
            # A task read early may have changed while later ones, with later stamps, were still being read.
            until = max(stamps) - reading
            projects.set_cursor(session, project.id, until if present is None else min(until, present))
        projects.mark_synced(session, project.id)
    for problem in report.problems:
        log.warning("a region was left out of the labels (its review is kept whole): %s", problem)
    return report


def _take_in(
    loop: Loop, label_studio: LabelStudio, project: Project, tasks: Sequence[Task], newest: int, report: SyncReport
) -> dict[int, datetime]:
    """Record what these tasks hold; when Label Studio says each of them changed last, by its id."""
    sync_task = _sync_cell_task if project.way == Way.cell else _sync_field_task
    emails = label_studio.users() if any(task.annotations for task in tasks) else {}
    for task in _with_something_new(loop, project, tasks):
        sync_task(loop, label_studio, project, task, emails, newest, report)
    return {task.id: task.updated_at for task in tasks if task.updated_at}


def _take_in_unread(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    ours: Sequence[OurTask | CellTask],
    living: Mapping[int, datetime],
    read: Mapping[int, datetime],
    report: SyncReport,
) -> dict[int, datetime]:
    """As `_take_in`, for tasks that changed at a moment other than the one they were last read at.

    Label Studio's clock was wrong for a while and is right again: what it stamped then lies before the cursor.
    """
    last = {**{task.ls_task_id: task.read_at for task in ours}, **read}
    unread = [moment for task_id, moment in living.items() if task_id in last and moment != last[task_id]]
    if not unread:
        return {}
    with loop.database.session(read_only=True) as session:
        newest = reviews.newest_review_id(session)
    again = list(label_studio.tasks_since(project.ls_project_id, min(unread)))
    return _take_in(loop, label_studio, project, again, newest, report)


def _answered_pairs(loop: Loop, label_studio: LabelStudio, project: Project, task: Task) -> dict[int, str]:
    """Pair name by Label Studio prediction id, for the predictions that this task's annotations answer.

    Predictions of earlier pairs stay in Label Studio and may still be submitted; it is asked about those.
    """
    found: dict[int, str] = {}
    for parent in {a.parent_prediction for a in task.annotations if a.parent_prediction is not None}:
        with loop.database.session(read_only=True) as session:
            name = projects.pushed_pair(session, project.id, parent)
        if name is None:
            prediction = label_studio.prediction(parent)
            name = prediction.model_version if prediction is not None else None
        if name is not None:
            found[parent] = name
    return found


def _sync_field_task(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    task: Task,
    emails: Mapping[int, str],
    newest: int,
    report: SyncReport,
) -> None:
    config = parse(project.label_config)
    pair_names = _answered_pairs(loop, label_studio, project, task)
    with loop.database.session() as session:
        _record_field(session, project, config, task, emails, pair_names, newest, report)


def _with_something_new(loop: Loop, project: Project, changed: Sequence[Task]) -> list[Task]:
    """Those of these tasks that do not hold exactly what the record holds.

    Most were read before, as windows overlap, or were only just made: asking once for all of them spares each a
    transaction, which keeps webhooks and experts waiting.
    """
    with loop.database.session(read_only=True) as session:
        live = reviews.live_of_tasks(session, project.ls_project_id, [task.id for task in changed])
    known: dict[int | None, dict[str, tuple[ReviewStatus, str]]] = {}
    for review in live:
        known.setdefault(review.ls_task_id, {})[review.thread] = (review.status, review.content_sha256)
    return [task for task in changed if _said(project, task) != known.get(task.id, {})]


def _said(project: Project, task: Task) -> dict[str, tuple[ReviewStatus, str]]:
    """What each annotation of the task says, by its thread, as the record would keep it."""
    return {
        reviews.annotation_thread(project.ls_project_id, annotation.id): (
            ReviewStatus.skipped if annotation.was_cancelled else ReviewStatus.submitted,
            reviews.content_sha256(annotation.result),
        )
        for annotation in task.annotations
    }


def _sync_cell_task(
    loop: Loop,
    label_studio: LabelStudio,
    project: Project,
    task: Task,
    emails: Mapping[int, str],
    newest: int,
    report: SyncReport,
) -> None:
    config = parse_cells(project.label_config)
    with loop.database.session() as session:
        empty = sync_cell(session, project, config, task, emails, newest, report)
    for annotation_id in empty:
        label_studio.remove_annotation(annotation_id)  # the cell is asked again


def _record_field(
    session: Session,
    project: Project,
    config: LabelConfig,
    task: Task,
    emails: Mapping[int, str],
    pair_names: Mapping[int, str],
    newest: int,
    report: SyncReport,
) -> None:
    known = projects.task_of(session, project.id, ls_task_id=task.id)
    if known is None:
        return  # a task of an image we do not know
    report.tasks += 1
    images.lock(session, known.image_id)
    image = images.get(session, known.image_id)
    present = set()
    for annotation in task.annotations:
        if placed.is_placed(known, annotation):
            continue
        user = annotation.completed_by or 0
        source = Source(
            project=project,
            config=config,
            image=image,
            ls_task_id=task.id,
            expert=emails.get(user, f"user {user}"),
            pair_name=pair_names.get(annotation.parent_prediction or 0),
            read_at=task.updated_at,
            known=newest,
        )
        present.add(record_review(session, source, annotation, report))
    for last in reviews.live_of_tasks(session, project.ls_project_id, [task.id]):
        if last.thread not in present and not outdated(last, task.updated_at, newest):
            withdraw(session, last, task.updated_at or now(), report)


def _withdraw_deleted_tasks(
    session: Session, project: Project, gone: Sequence[OurTask | CellTask], report: SyncReport
) -> None:
    if not gone:
        return
    mark_deleted = cell_tasks.mark_deleted if project.way == Way.cell else projects.mark_deleted
    mark_deleted(session, [task.id for task in gone])
    for last in reviews.live_of_tasks(session, project.ls_project_id, [task.ls_task_id for task in gone]):
        withdraw(session, last, now(), report)
    log.warning("%d tasks were deleted in Label Studio: their labels are withdrawn, their history stays", len(gone))
