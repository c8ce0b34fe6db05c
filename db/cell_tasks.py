"""Tasks of single cells in Label Studio: one per queue item, and what a task of a cell needs to be made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.cells import place_of
from db.errors import NotFound
from db.labels import current_label
from db.models import CellTask, Image, ItemStatus, PredictedCell, Project, Review, ReviewItem, Slot, Way, now

Box = tuple[float, float, float, float]  # xyxy, px


@dataclass(frozen=True)
class AskedCell:
    """What a queue item of a cell asks about. box: xyxy px, as last said by an expert, else as predicted.

    shape, mask: as that expert drew it. label: what the model says, None where no model is asked about.
    """

    item_id: int
    image_id: int
    cell_id: int
    sha256: str
    file: str
    width: int
    height: int
    box: Box
    shape: str
    mask: bytes | None
    predicted_cell_id: int | None
    predicted_box: Box | None
    prediction_id: int | None
    label: str | None
    status: ItemStatus


def asked(session: Session, item_id: int) -> AskedCell | None:
    """The cell an item asks about; None for an unknown item, a field's, and a cell without any place."""
    item = session.get(ReviewItem, item_id)
    if item is None or item.cell_id is None:
        return None
    image = session.get_one(Image, item.image_id)
    predicted = session.get(PredictedCell, item.predicted_cell_id) if item.predicted_cell_id is not None else None
    said = current_label(session, item.cell_id)
    predicted_box = (predicted.x1, predicted.y1, predicted.x2, predicted.y2) if predicted is not None else None
    drawn = said if said is not None and said.box is not None else None
    box = drawn.box if drawn is not None else predicted_box
    if box is None:  # drawn by hand, and taken back by now: it is asked about where it was
        box = place_of(session, item.cell_id)
    if box is None:
        return None
    return AskedCell(
        item_id=item.id,
        image_id=image.id,
        cell_id=item.cell_id,
        sha256=image.sha256,
        file=image.file,
        width=image.width,
        height=image.height,
        box=box,
        shape=(drawn.shape if drawn is not None else None) or "rectangle",
        mask=drawn.mask if drawn is not None else None,
        predicted_cell_id=item.predicted_cell_id,
        predicted_box=predicted_box,
        prediction_id=predicted.prediction_id if predicted is not None else None,
        label=predicted.label if predicted is not None else None,
        status=item.status,
    )


def add(session: Session, project_id: int, pairs: Iterable[tuple[int, int]]) -> list[CellTask]:
    """The tasks of these (Label Studio task id, item id); adding again changes nothing.

    An item whose task was deleted may come back under another task id.
    """
    wanted = list(pairs)
    query = select(CellTask).where(
        CellTask.project_id == project_id, CellTask.item_id.in_([item_id for _, item_id in wanted])
    )
    known = {task.item_id: task for task in session.scalars(query)}
    items = {
        item.id: item
        for item in session.scalars(select(ReviewItem).where(ReviewItem.id.in_([item_id for _, item_id in wanted])))
    }
    result = []
    for ls_task_id, item_id in wanted:
        task = known.get(item_id)
        if task is None:
            item = items.get(item_id)
            if item is None or item.cell_id is None:
                raise NotFound(f"expected a cell's item with id {item_id}, found none")
            task = CellTask(
                project_id=project_id,
                ls_task_id=ls_task_id,
                item_id=item.id,
                image_id=item.image_id,
                cell_id=item.cell_id,
                placed=[],
            )
            known[item_id] = task
            session.add(task)
        elif task.ls_task_id != ls_task_id:
            task.ls_task_id, task.placed = ls_task_id, []
            task.pushed_ls_prediction_id = task.pushed_score = None
        task.deleted_at = None
        result.append(task)
    session.flush()
    return result


def known_items(session: Session, item_ids: Sequence[object]) -> set[object]:
    """Those of these values that are ids of cells' items."""
    numbers = [value for value in item_ids if isinstance(value, int)]
    query = select(ReviewItem.id).where(ReviewItem.id.in_(numbers), ReviewItem.way == Way.cell)
    return set(session.scalars(query))


def tasks(session: Session, project_id: int, *, deleted: bool = False) -> Sequence[CellTask]:
    """The tasks of a project in Label Studio's order; with `deleted`, also those that are gone there."""
    query = select(CellTask).where(CellTask.project_id == project_id).order_by(CellTask.ls_task_id)
    return session.scalars(query if deleted else query.where(CellTask.deleted_at.is_(None))).all()


def task_of(session: Session, project_id: int, ls_task_id: int) -> CellTask | None:
    """The task with this Label Studio id, deleted ones included."""
    query = select(CellTask).where(CellTask.project_id == project_id, CellTask.ls_task_id == ls_task_id)
    return session.scalar(query)


def get(session: Session, task_id: int) -> CellTask:
    """The task with this id (ours, not Label Studio's). Raises NotFound."""
    task = session.get(CellTask, task_id)
    if task is None:
        raise NotFound(f"expected a cell's task with id {task_id}, found none")
    return task


def last_ls_task_id(session: Session, project_id: int) -> int:
    """The newest Label Studio task id we know of in this project, deleted ones included; 0 when there is none."""
    query = select(func.max(CellTask.ls_task_id)).where(CellTask.project_id == project_id)
    return session.scalar(query) or 0


def unanswered(session: Session, project_id: int) -> list[tuple[CellTask, ReviewItem]]:
    """Living tasks whose item is not done, in Label Studio's order, with that item."""
    query = (
        select(CellTask, ReviewItem)
        .join(ReviewItem, ReviewItem.id == CellTask.item_id)
        .where(CellTask.project_id == project_id, CellTask.deleted_at.is_(None), ReviewItem.status != ItemStatus.done)
    )
    return [(task, item) for task, item in session.execute(query.order_by(CellTask.ls_task_id))]


def missing(session: Session, project_id: int) -> Sequence[ReviewItem]:
    """Cells that wait and have no living task in this project, the most valuable first."""
    there = select(CellTask.item_id).where(CellTask.project_id == project_id, CellTask.deleted_at.is_(None))
    query = select(ReviewItem).where(
        ReviewItem.status == ItemStatus.pending, ReviewItem.way == Way.cell, ReviewItem.id.not_in(there)
    )
    return session.scalars(query.order_by(ReviewItem.score.desc(), ReviewItem.id)).all()


def answered_elsewhere(session: Session, project_id: int) -> Sequence[CellTask]:
    """Living tasks whose item is done although nobody ever answered them in this project."""
    here = select(Review.ls_task_id).join(Project, Project.ls_project_id == Review.ls_project_id)
    query = (
        select(CellTask)
        .join(ReviewItem, ReviewItem.id == CellTask.item_id)
        .where(
            CellTask.project_id == project_id,
            CellTask.deleted_at.is_(None),
            ReviewItem.status == ItemStatus.done,
            CellTask.ls_task_id.not_in(here.where(Project.id == project_id, Review.ls_task_id.is_not(None))),
        )
    )
    return session.scalars(query.order_by(CellTask.id)).all()


def superseded_before(session: Session, project_id: int, moment: datetime) -> Sequence[CellTask]:
    """Living tasks whose item a ranking left out before this moment."""
    query = (
        select(CellTask)
        .join(ReviewItem, ReviewItem.id == CellTask.item_id)
        .where(
            CellTask.project_id == project_id,
            CellTask.deleted_at.is_(None),
            ReviewItem.status == ItemStatus.superseded,
            ReviewItem.closed_at < moment,
        )
    )
    return session.scalars(query.order_by(CellTask.id)).all()


def waiting_images(session: Session, url: str) -> set[int]:
    """Images some cell of which waits for a first reading in a project of cells at this address."""
    connected = session.scalar(select(Project.id).where(Project.url == url, Project.way == Way.cell).limit(1))
    if connected is None:
        return set()
    query = select(ReviewItem.image_id).where(
        ReviewItem.status == ItemStatus.pending, ReviewItem.way == Way.cell, ReviewItem.slot != Slot.second_reading
    )
    return set(session.scalars(query.distinct()))


def repoint(session: Session, task_id: int, item_id: int) -> None:
    """Let a task that waits ask for another item of the same cell."""
    get(session, task_id).item_id = item_id
    session.flush()


def mark_pushed(session: Session, task_id: int, ls_prediction_id: int | None, score: float | None) -> None:
    """Note what Label Studio now holds of ours for this task (`task_id`: ours)."""
    task = get(session, task_id)
    task.pushed_ls_prediction_id = ls_prediction_id
    task.pushed_score = None if score is None else float(score)
    session.flush()


def mark_deleted(session: Session, task_ids: Iterable[int], moment: datetime | None = None) -> int:
    """Note that these tasks (our ids) are gone in Label Studio; how many were alive."""
    count = 0
    for task_id in task_ids:
        task = get(session, task_id)
        if task.deleted_at is None:
            task.deleted_at = moment or now()
            count += 1
    session.flush()
    return count
