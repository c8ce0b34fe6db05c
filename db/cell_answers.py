"""What experts have said about single cells, for the fields these cells lie in."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.labels import LiveLabel, current_labels
from db.models import LabelRevision, Review, Task, Way


def unshown(session: Session, project_id: int) -> dict[int, int]:
    """Living tasks of fields (our ids) whose prediction does not show every answer about a single cell yet.

    With the newest such revision's id.
    """
    newest = (
        select(LabelRevision.image_id, func.max(LabelRevision.id).label("newest"))
        .join(Review, Review.id == LabelRevision.review_id)
        .where(Review.way == Way.cell)
        .group_by(LabelRevision.image_id)
        .subquery()
    )
    query = (
        select(Task.id, newest.c.newest)
        .join(newest, newest.c.image_id == Task.image_id)
        .where(
            Task.project_id == project_id,
            Task.deleted_at.is_(None),
            Task.pushed_ls_prediction_id.is_not(None),
            func.coalesce(Task.pushed_revision_id, 0) < newest.c.newest,
        )
    )
    return {task_id: revision_id for task_id, revision_id in session.execute(query)}


def said_of_cells(session: Session, image_id: int) -> dict[str, LiveLabel]:
    """The current labels of an image that were given cell by cell, by the cell's key."""
    threads = set(session.scalars(select(Review.thread).where(Review.image_id == image_id, Review.way == Way.cell)))
    return {live.key: live for live in current_labels(session, [image_id]) if live.thread in threads}
