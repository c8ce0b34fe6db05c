"""Labels: the current answer about every cell, and the answer of any earlier moment, from append-only revisions.

Within a thread (one annotation through all its states) the last revision of a cell counts; `withdrawn` means the
thread says nothing about it any more. Between threads the newest answer counts. Time is the expert's
(`decided_at`); ties are broken by the order of recording. The answers of now are kept by triggers (`db/derived.py`);
those of other moments are computed here by the same rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, insert, literal, select
from sqlalchemy.orm import Session

from db.chunks import chunks
from db.ids import ids_for
from db.images import images_with_live_review
from db.models import Action, Cell, CurrentLabel, Image, LabelCount, LabelRevision, Review, ReviewStatus, Split

NewRevision = dict[str, Any]  # a revision's columns, before it is one
RETRAINING_LABELS = frozenset({"difficult", "gametocyte", "ring", "schizont", "trophozoite"})


@dataclass(frozen=True)
class LiveLabel:
    """One cell's live answer. `label` None: an expert says there is no cell. `box`: xyxy px, None with it."""

    cell_id: int
    key: str
    image_id: int
    label: str | None
    box: tuple[float, float, float, float] | None
    mask: bytes | None  # COCO RLE counts
    shape: str | None
    action: Action
    expert: str
    decided_at: datetime
    revision_id: int
    thread: str


def revision(
    review: Review,
    cell_id: int,
    action: Action,
    label: str | None = None,
    box: tuple[float, float, float, float] | None = None,
    *,
    shape: str | None = None,
    mask: bytes | None = None,
    predicted_cell_id: int | None = None,
    predicted_iou: float | None = None,
    decided_at: datetime | None = None,
) -> NewRevision:
    """A revision that belongs to this review, ready for `add_revisions`."""
    corners = [None] * 4 if box is None else [float(value) for value in box]
    return {
        "review_id": review.id,
        "thread": review.thread,
        "cell_id": cell_id,
        "image_id": review.image_id,
        "predicted_cell_id": predicted_cell_id,
        "action": action,
        "label": label,
        **dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)),
        "shape": shape,
        "mask": mask,
        "predicted_iou": None if predicted_iou is None else float(predicted_iou),
        "decided_at": decided_at or review.revised_at,
    }


def add_revisions(session: Session, rows: Sequence[NewRevision]) -> None:
    """Append revisions, in this order. Without objects: a field has 80 of them, and everybody else waits meanwhile."""
    if not rows:
        return
    ids = ids_for(session, LabelRevision, len(rows))
    session.execute(insert(LabelRevision), [{**row, **number} for row, number in zip(rows, ids, strict=True)])


def _live(
    image_ids: Sequence[int] | None,
    thread: str | None,
    as_of: datetime | None,
    until: int | None,
    cell_ids: Sequence[int] | None = None,
) -> Select[*tuple[Any, ...]]:
    """Ids of the revisions that are live per (cell, thread), with their rank per cell (1 = current).

    Of now and of all threads: only the current ones.
    """
    if thread is None and as_of is None and until is None:
        kept = select(CurrentLabel.revision_id.label("id"), literal(1).label("place"))
        if image_ids is not None:
            kept = kept.where(CurrentLabel.image_id.in_(image_ids))
        return kept if cell_ids is None else kept.where(CurrentLabel.cell_id.in_(cell_ids))
    in_thread = select(
        LabelRevision.id,
        LabelRevision.cell_id,
        LabelRevision.action,
        LabelRevision.decided_at,
        func.row_number()
        .over(partition_by=(LabelRevision.cell_id, LabelRevision.thread), order_by=LabelRevision.id.desc())
        .label("place_in_thread"),
    )
    if image_ids is not None:
        in_thread = in_thread.where(LabelRevision.image_id.in_(image_ids))
    if cell_ids is not None:
        in_thread = in_thread.where(LabelRevision.cell_id.in_(cell_ids))
    if thread is not None:
        states = select(Review.id).where(Review.thread == thread)  # reviews have an index by thread
        in_thread = in_thread.where(LabelRevision.review_id.in_(states))
    if as_of is not None:
        in_thread = in_thread.where(LabelRevision.decided_at <= as_of)
    if until is not None:
        in_thread = in_thread.where(LabelRevision.id <= until)
    last = in_thread.subquery("last")
    return select(
        last.c.id,
        func.row_number()
        .over(partition_by=last.c.cell_id, order_by=(last.c.decided_at.desc(), last.c.id.desc()))
        .label("place"),
    ).where(last.c.place_in_thread == 1, last.c.action != Action.withdrawn)


def last_revisions() -> Select[int]:
    """A query for the ids of what each thread said last about each cell, withdrawn or not."""
    return select(func.max(LabelRevision.id)).group_by(LabelRevision.cell_id, LabelRevision.thread)


def current_revisions(cell_ids: Sequence[int] | None = None) -> Select[*tuple[Any, ...]]:
    """A query for the ids (`id`) of the revisions that are the current answer about their cell; of these cells only
    when given, in a time that does not grow with all labels.
    """
    live = _live(None, None, None, None, cell_ids).subquery("places")
    return select(live.c.id).where(live.c.place == 1)


def _rows(session: Session, live: Select[*tuple[Any, ...]]) -> Iterator[LiveLabel]:
    ids = live.subquery("live")
    columns = LabelRevision.__table__.columns  # columns, not objects: nobody may change a revision
    query = (
        select(*columns, Cell.key, Review.expert)
        .join(ids, ids.c.id == LabelRevision.id)
        .join(Cell, Cell.id == LabelRevision.cell_id)
        .join(Review, Review.id == LabelRevision.review_id)
        .where(ids.c.place == 1)
        .order_by(LabelRevision.image_id, LabelRevision.cell_id)
    )
    for row in session.execute(query):
        yield _label(row)


def _label(row: Row[*tuple[Any, ...]]) -> LiveLabel:
    return LiveLabel(
        cell_id=row.cell_id,
        key=row.key,
        image_id=row.image_id,
        label=row.label,
        box=None if row.x1 is None else (row.x1, row.y1, row.x2, row.y2),
        mask=row.mask,
        shape=row.shape,
        action=row.action,
        expert=row.expert,
        decided_at=row.decided_at,
        revision_id=row.id,
        thread=row.thread,
    )


def current_labels(
    session: Session,
    image_ids: Collection[int] | None = None,
    as_of: datetime | None = None,
    newest_revision_id: int | None = None,
) -> list[LiveLabel]:
    """The current answer about every cell, by image and cell; of all images when `image_ids` is None.

    `as_of`: only what experts had decided by then. `newest_revision_id`: only what was recorded by then, which
    is how a training's labels are found again exactly. Cells an expert rejected are included with label None.
    """
    if image_ids is None:
        return list(_rows(session, _live(None, None, as_of, newest_revision_id)))
    found: list[LiveLabel] = []
    for chunk in chunks(image_ids):
        live = _live(chunk, None, as_of, newest_revision_id)
        found.extend(_rows(session, live))
    return found


def current_label(session: Session, cell_id: int) -> LiveLabel | None:
    """The current answer about one cell, in a time that does not grow with its image's cells; None without any."""
    return next(_rows(session, _live(None, None, None, None, [cell_id])), None)


def thread_labels(session: Session, thread: str) -> list[LiveLabel]:
    """What one annotation says at present, whatever other annotations say. Withdrawn answers are left out."""
    return list(_rows(session, _live(None, thread, None, None)))


def history(session: Session, cell_id: int) -> Sequence[LabelRevision]:
    """Everything ever said about one cell, in the order of recording."""
    query = select(LabelRevision).where(LabelRevision.cell_id == cell_id).order_by(LabelRevision.id)
    return session.scalars(query).all()


def newest_revision_id(session: Session) -> int:
    """Id of the last recorded revision, 0 when there is none."""
    return session.scalar(select(func.max(LabelRevision.id))) or 0


def new_infected_since(session: Session, revision_id: int) -> dict[str, int]:
    """Cells per infected stage, or "difficult", whose current label an expert gave after this revision.

    Imported labels do not count. Every such label is a key, zeros included.
    """
    live = _live(None, None, None, None).subquery("live")
    query = (
        select(LabelRevision.label, func.count())
        .join(live, live.c.id == LabelRevision.id)
        .join(Image, Image.id == LabelRevision.image_id)
        .where(
            live.c.place == 1,
            LabelRevision.id > revision_id,
            LabelRevision.action != Action.imported,
            LabelRevision.label.in_(RETRAINING_LABELS),
            Image.split == Split.train,
        )
        .group_by(LabelRevision.label)
    )
    found = {label: number for label, number in session.execute(query)}
    return {label: found.get(label, 0) for label in sorted(RETRAINING_LABELS)}


def changed_counts(session: Session, revision_id: int, split: Split) -> tuple[list[int], dict[str, int]]:
    """What was said after this revision: the cells spoken of, and by how much the cells of each label changed.

    The time it takes grows with what was said, not with all labels.
    """
    said = select(LabelRevision.cell_id).join(Image, Image.id == LabelRevision.image_id)
    said = said.where(LabelRevision.id > revision_id, Image.split == split).distinct()
    touched = sorted(session.scalars(said))
    change: Counter[str] = Counter()
    for cells in chunks(touched):
        for until, sign in ((None, 1), (revision_id, -1)):
            live = _live(None, None, None, until, cells).subquery("live")
            query = select(LabelRevision.label).join(live, live.c.id == LabelRevision.id).where(live.c.place == 1)
            for label in session.scalars(query):
                if label is not None:
                    change[label] += sign
    return touched, {label: number for label, number in sorted(change.items()) if number}


def labelled_images(session: Session, split: Split | str | None = None) -> Sequence[Image]:
    """Completely labelled images: with a live submitted review of the field (an import counts as one), oldest first.

    Those with answers about single cells only are not among them (`db/labelled.py`).
    """
    query = select(Image).where(Image.id.in_(images_with_live_review([ReviewStatus.submitted])))
    if split is not None:
        query = query.where(Image.split == Split(split))
    return session.scalars(query.order_by(Image.id)).all()


def class_counts(session: Session, split: Split | str | None = None) -> dict[str, int]:
    """Cells per current label, rejected cells left out."""
    query = select(LabelCount.label, func.sum(LabelCount.cells)).group_by(LabelCount.label).order_by(LabelCount.label)
    if split is not None:
        query = query.join(Image, Image.id == LabelCount.image_id).where(Image.split == Split(split))
    return {label: count for label, count in session.execute(query) if count}
