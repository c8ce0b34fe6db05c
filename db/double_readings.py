"""Double readings: what different experts said about the same cell.

Each annotation speaks once per cell, with its last answer, unless that is withdrawn; an expert with several annotations
of one image, with the newest. Silence is no answer: a cell that one expert drew and another did not is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Action, LabelRevision, Review
from db.reviews import IMPORT_EXPERT


@dataclass(frozen=True)
class Reading:
    """One expert's answer about one cell. label: None says that there is no cell."""

    cell_id: int
    image_id: int
    expert: str
    label: str | None
    decided_at: datetime


def double_readings(session: Session, imports: bool = False, newest: int | None = None) -> list[Reading]:
    """The answers about every cell that at least two experts gave one about, by cell and in the order they decided.

    imports: labels that came with a data set count as answers of the expert "import". newest: only cells that so many
    last answers are about, in a time that does not grow with all of them.
    """
    query = select(
        LabelRevision.id,
        LabelRevision.cell_id,
        LabelRevision.image_id,
        LabelRevision.label,
        LabelRevision.action,
        LabelRevision.decided_at,
        Review.expert,
        func.row_number()
        .over(partition_by=(LabelRevision.cell_id, LabelRevision.thread), order_by=LabelRevision.id.desc())
        .label("place"),
    ).join(Review, Review.id == LabelRevision.review_id)
    if newest is not None:
        last = select(LabelRevision.cell_id).order_by(LabelRevision.id.desc()).limit(newest).subquery("last")
        query = query.where(LabelRevision.cell_id.in_(select(last.c.cell_id)))
    in_thread = query.subquery("in_thread")
    of_expert = select(
        *in_thread.c,
        func.row_number()
        .over(
            partition_by=(in_thread.c.cell_id, in_thread.c.expert),
            order_by=(in_thread.c.decided_at.desc(), in_thread.c.id.desc()),
        )
        .label("place_of_expert"),
    ).where(in_thread.c.place == 1, in_thread.c.action != Action.withdrawn)
    if not imports:
        of_expert = of_expert.where(in_thread.c.expert != IMPORT_EXPERT)
    live = of_expert.subquery("of_expert")
    counted = (
        select(*live.c, func.count().over(partition_by=live.c.cell_id).label("experts"))
        .where(live.c.place_of_expert == 1)
        .subquery("counted")
    )
    twice = (
        select(counted.c.cell_id, counted.c.image_id, counted.c.expert, counted.c.label, counted.c.decided_at)
        .where(counted.c.experts > 1)
        .order_by(counted.c.cell_id, counted.c.decided_at, counted.c.id)
    )
    return [Reading(*row) for row in session.execute(twice)]
