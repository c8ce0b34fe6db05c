"""One cell's annotations into SQL: each state as an append-only review, and one label revision for the cell."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from al_loop.record_review import SyncReport, outdated, withdraw, withdraw_labels
from al_loop.revise import box_iou
from backend.label_studio.cell_config import ADD_TO_FIELD, NOT_A_CELL, CellConfig, answer_of
from backend.label_studio.protocol import Annotation, Task
from db import cell_tasks, images, labels, placed, queue, requests, reviews
from db.cell_tasks import AskedCell
from db.labels import LiveLabel
from db.models import Action, Cell, CellTask, ItemStatus, Project, Review, ReviewItem, ReviewStatus, Way, now

log = logging.getLogger("cellloop.sync")


@dataclass(frozen=True)
class _Source:
    """Where an annotation comes from, and what was asked. known: the newest review when the reading began."""

    project: Project
    config: CellConfig
    task: CellTask
    asked: AskedCell
    expert: str
    known: int


def sync_cell(
    session: Session,
    project: Project,
    config: CellConfig,
    task: Task,
    emails: Mapping[int, str],
    newest: int,
    report: SyncReport,
) -> list[int]:
    """Everything Label Studio holds about one cell's task, compared with what is known. A cell we do not know, or
    whose task people made, is passed over. newest: the newest review when the task began to be read.

    Returns the annotations that hold no answer: somebody submitted without choosing one.
    """
    known = cell_tasks.task_of(session, project.id, task.id)
    if known is None:
        return []
    report.tasks += 1
    images.lock(session, known.image_id)
    theirs = [annotation for annotation in task.annotations if not placed.is_placed(known, annotation)]
    asked = cell_tasks.asked(session, known.item_id) if theirs else None
    present, empty = set(), []
    for annotation in theirs:
        if asked is None:
            break
        if not annotation.was_cancelled and answer_of(annotation.result, config) is None:
            log.info("annotation %d holds no answer: its cell is asked again", annotation.id)
            empty.append(annotation.id)
            continue
        user = annotation.completed_by or 0
        source = _Source(project, config, known, asked, emails.get(user, f"user {user}"), newest)
        present.add(_record(session, source, annotation, report))
    for last in reviews.live_of_tasks(session, project.ls_project_id, [task.id]):
        if last.thread not in present and not outdated(last, task.updated_at, newest):
            withdraw(session, last, task.updated_at or now(), report)
    return empty


def _record(session: Session, source: _Source, annotation: Annotation, report: SyncReport) -> str:
    """Append what this annotation says now, unless it is known already. Returns the annotation's thread."""
    thread = reviews.annotation_thread(source.project.ls_project_id, annotation.id)
    status = ReviewStatus.skipped if annotation.was_cancelled else ReviewStatus.submitted
    last = reviews.latest_review(session, thread)
    if last and last.status == status and last.content_sha256 == reviews.content_sha256(annotation.result):
        return thread
    if last and outdated(last, annotation.updated_at, source.known):
        return thread
    review = reviews.add_review(
        session,
        thread=thread,
        image_id=source.task.image_id,
        way=Way.cell,
        status=status,
        expert=source.expert,
        revised_at=annotation.updated_at,
        content=annotation.result,
        lead_time_s=annotation.lead_time,
        ls_project_id=source.project.ls_project_id,
        ls_task_id=source.task.ls_task_id,
        ls_annotation_id=annotation.id,
        prediction_id=source.asked.prediction_id,
        sequence=reviews.after(last),
    )
    report.reviews[status.value] += 1
    item = session.get_one(ReviewItem, source.task.item_id)
    if status is ReviewStatus.skipped:
        withdraw_labels(session, review, report)
        _close(session, item, ItemStatus.skipped)
        return thread
    answer = answer_of(annotation.result, source.config)
    assert answer is not None  # those without were left out
    _close(session, item, ItemStatus.done)
    if answer == ADD_TO_FIELD:
        withdraw_labels(session, review, report)
        cell = session.get_one(Cell, source.task.cell_id)
        requests.ask_for_field(session, item, cell.key, source.expert)
        return thread
    said = [] if last is None else labels.thread_labels(session, thread)
    before = next((live for live in said if live.cell_id == source.task.cell_id), None)
    _say(session, review, source, before, answer, report)
    return thread


def _close(session: Session, item: ReviewItem, status: ItemStatus) -> None:
    """Not `close_cell` by the cell alone: an answer to an earlier item is none to a second reading that waits."""
    if item.status == ItemStatus.pending and item.cell_id is not None:
        queue.close_cell(session, item.cell_id, status)


def _say(
    session: Session, review: Review, source: _Source, before: LiveLabel | None, answer: str, report: SyncReport
) -> None:
    label = None if answer == NOT_A_CELL else answer
    if before is not None and before.label == label:
        return
    shown = before.label if before is not None and before.label is not None else source.asked.label
    action = Action.deleted if label is None else Action.accepted if label == shown else Action.relabelled
    asked = source.asked
    row = labels.revision(
        review,
        source.task.cell_id,
        action,
        label,
        None if label is None else asked.box,
        shape=None if label is None else asked.shape,
        mask=None if label is None else asked.mask,
        predicted_cell_id=asked.predicted_cell_id,
        predicted_iou=box_iou(asked.box, asked.predicted_box) if label and asked.predicted_box else None,
    )
    labels.add_revisions(session, [row])
    report.revisions[action.value] += 1
